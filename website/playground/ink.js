// From ink to the 784 pixels that a network expects, as notebook 14 Images has it: the box around the ink, its pen fitted,
// shrunk and centered. A picture is { values, height, width }, values row after row.

const round = v => Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v); // halves to even, as in Python

function crop({ values, width, height }, top, left, h, w) { // zeros where there is nothing
  const out = new Float64Array(h * w), from = Math.max(left, 0), to = Math.min(left + w, width);
  for (let y = Math.max(top, 0); y < Math.min(top + h, height); y++) {
    out.set(values.subarray(y*width + from, y*width + to), (y - top)*w + from - left);
  }
  return { values: out, height: h, width: w };
}

function cut(picture) { // the box around the ink
  const { values, height, width } = picture;
  let top = height, bottom = -1, left = width, right = -1;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (values[y*width + x] <= 0.25) continue;
    top = Math.min(top, y);
    bottom = y;
    left = Math.min(left, x);
    right = Math.max(right, x);
  }
  return bottom < 0 ? null : crop(picture, top, left, bottom - top + 1, right - left + 1);
}

function around({ values, height, width }, n, smallest) { // the smallest or largest of the 2n+1 rows and columns around
  const sign = smallest ? -1 : 1, along = (from, stride, side) => {
    const out = new Float64Array(from.length);
    for (let i = 0; i < from.length; i++) {
      const at = Math.floor(i / stride) % side, last = i + Math.min(n, side - 1 - at)*stride;
      let v = sign * from[i];
      for (let k = i - Math.min(n, at)*stride; k <= last; k += stride) if (sign * from[k] > v) v = sign * from[k];
      out[i] = sign * v;
    }
    return out;
  };
  return { values: along(along(values, width, height), 1, width), height, width };
}

const pad = (picture, n) => crop(picture, -n, -n, picture.height + 2*n, picture.width + 2*n);

function penOf(picture) { // its width, in pixels
  const full = pad({ ...picture, values: picture.values.map(v => +(v > 0.5)) }, 1), sum = (s, v) => s + v;
  const area = full.values.reduce(sum), inner = around(full, 1, true).values.reduce(sum);
  return 2 * area / (area - inner);
}

function fitPen(box) { // strokes as wide as those of MNIST: a tenth of the longer side
  const { height, width } = box, n = Math.min(Math.trunc((penOf(box) - 0.1 * Math.max(height, width)) / (2 * (1 - 0.1))),
                                              Math.floor((Math.min(height, width) - 1) / 2));
  return n > 0 ? around(pad(box, 1), n, true) : around(pad(box, -n), -n, false);
}

// Ink in [0, 1], `width` columns, brought into MNIST's form: its pen, the longer side 20 pixels, centered by mass in
// 28x28. (For drawings under 20 pixels `digit_from_image` interpolates where this repeats pixels.) Null without ink.
export function digitFromInk(ink, width) {
  const found = cut({ values: ink, height: ink.length / width, width });
  if (!found) return null;
  const box = cut(fitPen(found)), { height: h, width: w } = box;
  const scale = 20 / Math.max(h, w), sh = Math.max(1, round(h * scale)), sw = Math.max(1, round(w * scale));
  const span = (i, side, n) => { // the rows or columns whose middle lies in row or column i of n, as Pillow has it
    const step = side / n, wide = Math.max(step, 1), middle = (i + 0.5) * step, found = [];
    const last = Math.min(side, Math.trunc(middle + 0.5 * wide + 0.5));
    for (let k = Math.max(0, Math.trunc(middle - 0.5 * wide + 0.5)); k < last; k++) {
      const far = (k - middle + 0.5) / wide;
      if (far > -0.5 && far <= 0.5) found.push(k);
    }
    return found;
  };
  const small = new Float64Array(sh * sw), rows = Array.from({ length: sh }, (_, r) => span(r, h, sh)), cols = Array.from({ length: sw }, (_, c) => span(c, w, sw));
  for (let r = 0; r < sh; r++) for (let c = 0; c < sw; c++) {
    for (const y of rows[r]) for (const x of cols[c]) small[r*sw + c] += box.values[y*w + x];
    small[r*sw + c] /= rows[r].length * cols[c].length;
  }
  const peak = Math.max(...small), mass = small.reduce((s, v) => s + v);
  const place = (side, position) => { // so that the center of mass falls on the center
    const center = small.reduce((s, v, i) => s + v * position(i), 0) / mass;
    return Math.min(Math.max(round(14 - center), 0), 28 - side);
  };
  const y0 = place(sh, i => Math.floor(i / sw)), x0 = place(sw, i => i % sw), digit = new Float64Array(784);
  small.forEach((v, i) => { digit[(y0 + Math.floor(i / sw))*28 + x0 + i % sw] = v / peak * 255 / 256; });
  return digit;
}
