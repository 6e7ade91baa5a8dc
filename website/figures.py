"""The figures of the lessons as files of the site, SVG for both themes: `name.svg` is light, `name.svg#night` dark.

The notebooks draw with dark ink on paper. At night every color gets the opposite lightness
and keeps its hue (in OKLab, where equal steps of lightness look equal): ink turns light,
paper dark, blue stays blue. Pictures within a figure follow if they have color, as red and
blue weights do; gray ones, digits and photos, stay what they are.
"""
import base64
import html
import io
import re

import numpy as np
from PIL import Image

PAPER = '#fbfaf7' # the figures' ground
PAGE = '#ffffff'  # the ground of the site's light pages
NIGHT = '#17191b' # and of its dark ones
PIXELS_PER_POINT = 110/72 # as figures.mplstyle has it
READABLE = 0.78 # a figure with words is not drawn smaller than this; it scrolls instead
TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                   [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])
TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                   [1.9779984951, -2.4285922050, 0.4505937099],
                   [0.0259040371, 0.7827717662, -0.8086757660]])

# ---- colors at night

def at_night(rgb): # `(..., 3)`, from 0 to 1
    "The same colors for a dark ground: lightness reversed, from the page's dark to nearly white."
    linear = np.where(rgb <= 0.04045, rgb/12.92, ((rgb + 0.055)/1.055)**2.4)
    lab = np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T
    lab[..., 0] = 0.21 + 0.75*((1 - lab[..., 0]).clip(0)/0.85)**0.85
    linear = ((lab @ np.linalg.inv(TO_LAB).T)**3 @ np.linalg.inv(TO_LMS).T).clip(0, 1)
    return np.where(linear <= 0.0031308, linear*12.92, 1.055*linear**(1/2.4) - 0.055).clip(0, 1)

def night_color(color): # '#rrggbb'
    "The color that replaces this one on a dark page."
    if color == PAGE: return NIGHT
    rgb = np.array([int(color[i:i+2], 16) for i in (1, 3, 5)])/255
    return '#' + ''.join(f'{round(255*c):02x}' for c in at_night(rgb))

def both_pictures(match):
    "A picture within a figure, followed by its night version if it has color."
    image = Image.open(io.BytesIO(base64.b64decode(match[2])))
    pixels = np.asarray(image.convert('RGBA')).astype(float)/255
    gray = np.abs(pixels[..., :3] - pixels[..., :1]).max() < 0.02
    if gray: return match[0]
    pixels[..., :3] = at_night(pixels[..., :3])
    out = io.BytesIO()
    Image.fromarray((255*pixels).round().astype('uint8')).save(out, 'png', optimize=True)
    changed = base64.b64encode(out.getvalue()).decode()
    day = match[0].replace('<image ', '<image class="day" ', 1)
    night = day.replace('"day"', '"night"', 1).replace(match[2], changed)
    return day + re.sub(r' id="[^"]*"', '', night)

def for_both_themes(svg):
    "The figure with rules for the night. SVG fills with black where no color is given."
    svg = short(svg).replace(PAPER, PAGE)
    rules = ''
    for use, color in sorted(set(re.findall(r'\b(fill|stroke): (#[0-9a-f]{6})\b', svg))):
        rules += f'svg:target [style*="{use}: {color}"]{{{use}:{night_color(color)}!important}}'
    rules += f'svg:target{{fill:{night_color("#000000")}}}'
    rules += '.night,svg:target .day{display:none}svg:target .night{display:inline}'
    picture = r'<image [^>]*xlink:href="(data:image/png;base64,)([^"]*)"[^>]*/>'
    svg = re.sub(picture, both_pictures, svg)
    svg = svg.replace('<svg ', '<svg id="night" ', 1)
    return svg.replace('</style>', rules + '</style>', 1)

# ---- smaller files

def once(marks):
    "A group of equal marks, with the style that they share written once."
    styles = set(re.findall(r' style="([^"]*)"/>', marks[0]))
    if len(styles) > 1: return marks[0]
    style = f' style="{styles.pop()}"'
    return marks[0].replace(f'{style}/>', '/>').replace('<g', f'<g{style}', 1)

def short(svg):
    "The same drawing in fewer words: no notes, hundredths of a point, shared styles written once."
    def rounded(match):
        return f'{float(match[0]):.2f}'.rstrip('0').rstrip('.')
    def numbers(match):
        words = ' '.join(match[2].split())
        return match[1] + re.sub(r'-?\d+\.\d+', rounded, words) + '"'
    notes = r'<metadata>.*?</metadata>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>'
    svg = re.sub(notes, '', svg, flags=re.S)
    svg = re.sub(r'( (?:d|x|y)=")([^"]*)"', numbers, svg)
    svg = re.sub(r'>\s+<', '><', svg).strip()
    group = r'<g(?: clip-path="[^"]*")?>(?:<use [^>]* style="[^"]*"/>)+</g>'
    return re.sub(group, once, svg)

# ---- tags

def size(svg):
    "Width and height in pixels of the page, and the least width at which its words can be read."
    width = PIXELS_PER_POINT*float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)[1])
    height = PIXELS_PER_POINT*float(re.search(r'<svg[^>]* height="([\d.]+)pt"', svg)[1])
    least = round(READABLE*width) if 'id="text_' in svg else 0
    return round(width), round(height), least

def tag(src, theme, alt, width, height, least):
    "The tag that shows a figure; `theme`: the only one in which it is shown, or ''."
    kind = f'img-fluid {theme}-content' if theme else 'img-fluid'
    style = f' style="--least:{least}px"' if least else ''
    return (f'<img src="{src}" class="{kind}" alt="{html.escape(alt)}" width="{width}" '
            f'height="{height}" loading="lazy" decoding="async"{style}>')

def as_file(data, name, alt, folder):
    "Write a figure of a notebook, `data` by mime type, into `folder`; the tags that show it."
    folder.mkdir(parents=True, exist_ok=True)
    svg = ''.join(data.get('image/svg+xml', ''))
    if svg:
        file = folder/f'{name}.svg'
        file.write_text(for_both_themes(svg))
        src = f'{folder.name}/{file.name}'
        light = tag(src, 'light', alt, *size(svg))
        dark = tag(f'{src}#night', 'dark', alt, *size(svg))
        return light + dark
    file = folder/f'{name}.png'
    file.write_bytes(base64.b64decode(''.join(data['image/png'])))
    width, height = Image.open(file).size
    return tag(f'{folder.name}/{file.name}', '', alt, width, height, 0)
