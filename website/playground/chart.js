// A line chart on a canvas: one or two curves over the steps.
import { colors } from './pictures.js';

const LEFT = 44, RIGHT = 10, TOP = 10, BOTTOM = 24, MOST = 300; // margins; points of a curve, at most

// Every point the mean of those that fall on its place, so that a long curve is as quick to draw as a short one
export function thin(points) {
  const size = Math.ceil(points.length / MOST);
  if (size <= 1) return points;
  const mean = (part, k) => part.reduce((sum, p) => sum + p[k], 0) / part.length;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => points.slice(i*size, (i + 1)*size)).map(part => [mean(part, 0), mean(part, 1)]);
}

const nice = v => { // 1, 2 or 5 times a power of ten, at least v
  const power = 10**Math.floor(Math.log10(v));
  return power * [1, 2, 5, 10].find(k => k * power >= v * 0.999999);
};

// curves: [{ points: [[x, y], ...], color }], y from 0 to `top`
export function drawChart(canvas, curves, { right, top, label }) {
  const { width, height } = canvas.getBoundingClientRect(), fine = devicePixelRatio, pen = canvas.getContext('2d');
  canvas.width = width * fine;
  canvas.height = height * fine;
  pen.scale(fine, fine);
  const { ink } = colors(), faint = share => `rgb(${ink.join(' ')} / ${share})`;
  const x = v => LEFT + (width - LEFT - RIGHT) * v / right, y = v => height - BOTTOM - (height - TOP - BOTTOM) * Math.min(v / top, 1);
  Object.assign(pen, { font: '12px system-ui, sans-serif', lineJoin: 'round' });
  const every = nice(top / 4), across = nice(right / (width < 320 ? 2 : 4));
  for (let v = 0; v <= top * 1.001; v += every) {
    pen.strokeStyle = faint(v ? 0.12 : 0.5);
    pen.beginPath();
    pen.moveTo(LEFT, y(v));
    pen.lineTo(width - RIGHT, y(v));
    pen.stroke();
    Object.assign(pen, { fillStyle: faint(0.75), textAlign: 'right', textBaseline: 'middle' });
    pen.fillText(label(v), LEFT - 7, y(v));
  }
  for (let v = 0; v <= right; v += across) {
    Object.assign(pen, { textAlign: v ? 'center' : 'left', textBaseline: 'top' });
    if (x(v) < width - 20) pen.fillText(v.toLocaleString('en-US'), x(v), height - BOTTOM + 7);
  }
  for (const { points, color } of curves) {
    Object.assign(pen, { strokeStyle: `rgb(${color.join(' ')})`, lineWidth: 2 });
    pen.beginPath();
    let pendown = false;
    for (const [px, py] of thin(points)) {
      if (Number.isFinite(py)) pen[pendown ? 'lineTo' : 'moveTo'](x(px), y(py));
      pendown = Number.isFinite(py);
    }
    pen.stroke();
  }
}
