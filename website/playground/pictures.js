// Pictures of numbers: red above 0, blue below, paper for 0. A cell's number is read by pointing at it or by the arrow keys.

export const number = (v, digits = 3) => v === 0 ? '0' : v.toPrecision(digits).replace('-', '−');
export const small = v => v < 0.001 ? '<0.001' : number(v); // a loss
export const strongest = values => values.reduce((best, v) => Math.abs(v) > Math.abs(best) ? v : best, 0);
export const sizeOf = tensors => tensors.reduce((best, values) => Math.max(best, Math.abs(strongest(values))), 0);

let known = null;
export function colors() { // of the theme, each as three numbers
  return known ??= (() => {
    const place = document.getElementById('playground'), style = getComputedStyle(place);
    const dot = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgb = color => {
      dot.fillStyle = color;
      dot.fillRect(0, 0, 1, 1);
      return [...dot.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const named = name => rgb(style.getPropertyValue(name));
    return { ink: rgb(style.color), positive: named('--positive'), negative: named('--negative'), accent: named('--accent'), link: named('--bs-link-color') };
  })();
}
export const forgetColors = () => { known = null; };

function put(canvas, columns, n, pixel) { // pixel(i, data, 4*i) writes its four bytes
  const rows = Math.ceil(n / columns);
  if (canvas.width !== columns) canvas.width = columns;
  if (canvas.height !== rows) canvas.height = rows;
  const image = new ImageData(columns, rows);
  for (let i = 0; i < n; i++) pixel(i, image.data, 4*i);
  canvas.getContext('2d').putImageData(image, 0, 0);
}

export function paintInk(canvas, values, columns = 28, ink = colors().ink) { // the largest is opaque
  const most = values.reduce((p, q) => Math.max(p, q), 0) || 1;
  put(canvas, columns, values.length, (i, data, at) => {
    [data[at], data[at + 1], data[at + 2]] = ink;
    data[at + 3] = 255 * values[i] / most;
  });
}

// As strong as the root of the number's share of `scale`, so that small ones show
export const opacity = (v, scale) => scale ? Math.sqrt(Math.min(Math.abs(v) / scale, 1)) : 0;
export function paint(canvas, values, columns, scale) {
  const { positive, negative } = colors();
  put(canvas, columns, values.length, (i, data, at) => {
    [data[at], data[at + 1], data[at + 2]] = values[i] > 0 ? positive : negative;
    data[at + 3] = 255 * opacity(values[i], scale);
  });
}
export const tint = (v, scale) => `rgb(${(v > 0 ? colors().positive : colors().negative).join(' ')} / ${opacity(v, scale)})`;

// ---- the columns of a matrix (784, n), each as a tile of 28x28, eight tiles a row with a gap between them

export const tiledShape = n => [Math.min(n, 8)*29 - 1, Math.ceil(n / 8)*29 - 1];
export function tiles(w, n) {
  const [across, down] = tiledShape(n), out = new Float64Array(across * down);
  for (let unit = 0; unit < n; unit++) for (let pixel = 0; pixel < 784; pixel++) {
    const y = Math.floor(unit / 8)*29 + Math.floor(pixel / 28), x = unit % 8 * 29 + pixel % 28;
    out[y*across + x] = w[pixel*n + unit];
  }
  return { values: out, columns: across };
}
export const tileName = columns => i => {
  const y = Math.floor(i / columns), x = i % columns;
  if (y % 29 === 28 || x % 29 === 28) return null; // a gap
  return `unit ${Math.floor(y / 29)*8 + Math.floor(x / 29)}, pixel row ${y % 29}, column ${x % 29}`;
};
export const cellName = columns => i => `row ${Math.floor(i / columns)}, column ${i % columns}`;

// ---- a figure: the picture, its caption, a cursor

export class Picture {
  constructor(place, id, [columns, rows], { scale = 0, onPick = null } = {}) { // its room is taken at once: nothing moves later
    this.figure = Object.assign(document.createElement('figure'), { id, className: 'picture' });
    this.figure.innerHTML = '<div class="cells"><canvas role="img" tabindex="0" aria-label="Numbers"></canvas><span class="cursor" hidden></span></div>' +
      '<figcaption aria-live="polite"></figcaption>';
    place.append(this.figure);
    this.canvas = this.figure.querySelector('canvas');
    this.cursor = this.figure.querySelector('.cursor');
    this.caption = this.figure.querySelector('figcaption');
    Object.assign(this, { onPick, at: null });
    Object.assign(this.canvas, { width: columns, height: rows });
    if (scale) this.figure.style.width = `${Math.max(columns * scale, 130)}px`;
    if (scale) this.figure.firstChild.style.width = `${columns * scale}px`;
    this.canvas.addEventListener('pointermove', event => this.point(this.under(event)));
    this.canvas.addEventListener('pointerdown', event => { this.point(this.under(event)); if (onPick) onPick(this.at); });
    this.canvas.addEventListener('pointerleave', () => this.point(null));
    this.canvas.addEventListener('blur', () => this.point(null));
    this.canvas.addEventListener('keydown', event => this.key(event));
  }

  show(values, { label, columns, full, name = cellName(columns), note = '' }) { // full: the number in full color
    this.figure.style.visibility = values ? 'visible' : 'hidden'; // without values it keeps its room
    this.canvas.setAttribute('aria-label', `${label}. Arrow keys read the numbers.`);
    if (!values) return;
    paint(this.canvas, values, columns, full);
    this.summary = `${label}. Strongest: ${number(strongest(values))}${note}`;
    Object.assign(this, { values, columns, name });
    this.point(this.at < values.length ? this.at : null);
  }

  under(event) {
    if (!this.values) return null;
    const box = this.canvas.getBoundingClientRect(), rows = this.values.length / this.columns;
    const cell = (side, from, size, n) => Math.min(Math.max(Math.floor((side - from) / size * n), 0), n - 1);
    return cell(event.clientY, box.top, box.height, rows) * this.columns + cell(event.clientX, box.left, box.width, this.columns);
  }

  point(i) { // at a cell, or with null at none
    if (!this.values) return;
    if (i !== null && this.name(i) === null) i = null;
    this.at = i;
    this.cursor.hidden = i === null;
    const text = i === null ? this.summary : `${this.name(i)}: ${number(this.values[i])}`;
    if (this.caption.textContent !== text) this.caption.textContent = text || '';
    if (i === null) return;
    const rows = this.values.length / this.columns, share = n => `${100 / n}%`;
    Object.assign(this.cursor.style, { width: share(this.columns), height: share(rows),
      left: `${100 * (i % this.columns) / this.columns}%`, top: `${100 * Math.floor(i / this.columns) / rows}%` });
  }

  key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-1e9, 0], End: [1e9, 0] }[event.key];
    if (event.key === 'Enter' && this.onPick && this.at !== null) this.onPick(this.at);
    if (!move || !this.values) return;
    event.preventDefault();
    const rows = this.values.length / this.columns, within = (v, n) => Math.min(Math.max(v, 0), n - 1);
    if (this.at === null) return this.point(0); // the first key shows the first cell
    let [x, y] = [this.at % this.columns, Math.floor(this.at / this.columns)];
    do [x, y] = [within(x + move[0], this.columns), within(y + move[1], rows)];
    while (this.name(y*this.columns + x) === null);
    this.point(y*this.columns + x);
  }
}
