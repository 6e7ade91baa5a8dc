"""The figures of the lessons as files of the site, SVG for both themes: `name.svg` is light, `name.svg#night` dark.

The notebooks draw on paper, with dark ink. At night every color gets the opposite lightness and keeps its hue (in OKLab,
where equal steps of lightness look equal): ink turns light, paper dark, blue stays blue. Pictures within a figure follow
if they have color, as red and blue weights do; gray ones, digits and photos, stay what they are.
"""
import base64
import html
import io
import re

import numpy as np
from PIL import Image

PAPER, PAGE, NIGHT = '#fbfaf7', '#ffffff', '#17191b' # the figures' ground, and that of the site's light and dark pages
PIXELS_PER_POINT = 110/72 # as figures.mplstyle has it
READABLE = 0.78 # a figure with words is not drawn smaller than this; where there is less room, it scrolls
TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])
TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                   [0.0259040371, 0.7827717662, -0.8086757660]])

def at_night(rgb): # `(..., 3)`, from 0 to 1
    "The same colors for a dark ground: lightness turned round, from the page's dark to nearly white."
    linear = np.where(rgb <= 0.04045, rgb/12.92, ((rgb + 0.055)/1.055)**2.4)
    lab = np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T
    lab[..., 0] = 0.21 + 0.75*((1 - lab[..., 0]).clip(0)/0.85)**0.85
    linear = ((lab @ np.linalg.inv(TO_LAB).T)**3 @ np.linalg.inv(TO_LMS).T).clip(0, 1)
    return np.where(linear <= 0.0031308, linear*12.92, 1.055*linear**(1/2.4) - 0.055).clip(0, 1)

def night_color(color): # '#rrggbb'
    if color == PAGE: return NIGHT
    rgb = np.array([int(color[i:i+2], 16) for i in (1, 3, 5)])/255
    return '#' + ''.join(f'{round(255*c):02x}' for c in at_night(rgb))

def both_pictures(match):
    "A picture within a figure; if it has color, once for the day and once for the night."
    image = Image.open(io.BytesIO(base64.b64decode(match[2])))
    pixels = np.asarray(image.convert('RGBA')).astype(float)/255
    if np.abs(pixels[..., :3] - pixels[..., :1]).max() < 0.02: return match[0] # gray
    pixels[..., :3] = at_night(pixels[..., :3])
    out = io.BytesIO()
    Image.fromarray((255*pixels).round().astype('uint8')).save(out, 'png', optimize=True)
    day = match[0].replace('<image ', '<image class="day" ', 1)
    night = day.replace('"day"', '"night"', 1).replace(match[2], base64.b64encode(out.getvalue()).decode())
    return day + re.sub(r' id="[^"]*"', '', night)

def for_both_themes(svg):
    "The figure with rules for the night. Black is what SVG fills with when no color is said."
    svg = short(svg).replace(PAPER, PAGE)
    rules = ''.join(f'svg:target [style*="{use}: {color}"]{{{use}:{night_color(color)}!important}}'
                    for use, color in sorted(set(re.findall(r'\b(fill|stroke): (#[0-9a-f]{6})\b', svg))))
    rules += f'svg:target{{fill:{night_color("#000000")}}}.night,svg:target .day{{display:none}}svg:target .night{{display:inline}}'
    svg = re.sub(r'<image [^>]*xlink:href="(data:image/png;base64,)([^"]*)"[^>]*/>', both_pictures, svg)
    return svg.replace('<svg ', '<svg id="night" ', 1).replace('</style>', rules + '</style>', 1)

def once(marks):
    "A group of equal marks, with the style that they share said once."
    styles = set(re.findall(r' style="([^"]*)"/>', marks[0]))
    if len(styles) > 1: return marks[0]
    style = f' style="{styles.pop()}"'
    return marks[0].replace(f'{style}/>', '/>').replace('<g', f'<g{style}', 1)

def short(svg):
    "The same drawing in fewer words: no notes, hundredths of a point, the style of many marks said once."
    def rounded(match): return f'{float(match[0]):.2f}'.rstrip('0').rstrip('.')
    def numbers(match): return match[1] + re.sub(r'-?\d+\.\d+', rounded, ' '.join(match[2].split())) + '"'
    svg = re.sub(r'<metadata>.*?</metadata>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>', '', svg, flags=re.S)
    svg = re.sub(r'>\s+<', '><', re.sub(r'( (?:d|x|y)=")([^"]*)"', numbers, svg)).strip()
    return re.sub(r'<g(?: clip-path="[^"]*")?>(?:<use [^>]* style="[^"]*"/>)+</g>', once, svg)

def sizes(svg):
    "Width and height in pixels of the page, and the least width at which its words can be read."
    width, height = (PIXELS_PER_POINT*float(re.search(rf'<svg[^>]* {side}="([\d.]+)pt"', svg)[1]) for side in ('width', 'height'))
    return round(width), round(height), round(READABLE*width) if 'id="text_' in svg else 0

def as_file(data, name, alt, folder):
    "Write a figure of a notebook, `data` by mime type, into `folder`; the tags that show it."
    folder.mkdir(parents=True, exist_ok=True)
    tag = '<img src="{src}" class="img-fluid{cls}" alt="{alt}" width="{w}" height="{h}" loading="lazy" decoding="async"{style}>'
    alt = html.escape(alt)
    if svg := ''.join(data.get('image/svg+xml', '')):
        w, h, least = sizes(svg)
        style = f' style="--least:{least}px"' if least else ''
        (folder/f'{name}.svg').write_text(for_both_themes(svg))
        return ''.join(tag.format(src=f'{folder.name}/{name}.svg{part}', cls=f' {theme}-content', alt=alt, w=w, h=h, style=style)
                       for theme, part in (('light', ''), ('dark', '#night')))
    file = folder/f'{name}.png'
    file.write_bytes(base64.b64decode(''.join(data['image/png'])))
    w, h = Image.open(file).size
    return tag.format(src=f'{folder.name}/{file.name}', cls='', alt=alt, w=w, h=h, style='')
