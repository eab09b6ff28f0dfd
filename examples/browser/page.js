// Runs model.onnx in the browser and draws what it gives: nothing is sent anywhere.

const AREA = { left: -2.6, right: 3.6, bottom: -2.2, top: 2.7 };
const COLUMNS = 240;
const ROWS = 180;
const NATS = Math.log(2);
const CLASSES = [[31, 92, 168], [200, 82, 24]]; // blue and orange
const WHITE = [247, 247, 247];
const HEAT = [[247, 247, 247], [253, 190, 112], [214, 72, 60], [82, 14, 88]];
const STEP = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const EXPLANATIONS = {
  mean: "The mean of the members’ probabilities; pale where they say one half.",
  total: "The entropy of the mean: all of the uncertainty.",
  aleatoric: "The mean of the members’ entropies: what the overlap of the moons costs.",
  epistemic: "The mutual information: how much the members disagree.",
};

const at = (id) => document.getElementById(id);
const canvas = at("map");
const pen = canvas.getContext("2d");

let session;
let moons;
let map; // the outputs on a grid, by name
let point = { x: 0.5, y: 0.25 };
let running = Promise.resolve(); // a session runs one call at a time

start().catch((error) => {
  at("answer").textContent =
    `The page could not be set up: ${error.message}. It needs npm install, make_model.py and a ` +
    "server; README.md tells how.";
});

async function start() {
  if (!window.ort) throw new Error("there is no onnxruntime-web");
  ort.env.wasm.wasmPaths = new URL("node_modules/onnxruntime-web/dist/", location.href).href;
  ort.env.wasm.numThreads = 1;
  moons = await fetched("moons.json").then((answer) => answer.json());
  session = await ort.InferenceSession.create(
    new Uint8Array(await fetched("model.onnx").then((answer) => answer.arrayBuffer())),
  );
  at("first-class").textContent = moons.classes[0];
  at("second-class").textContent = moons.classes[1];
  at("risk").textContent = percent(moons.risk);
  at("confidence").textContent = percent(moons.confidence);
  map = await predict(grid());
  draw();
  await show(point);

  canvas.addEventListener("pointermove", (event) => show(pointOf(event)));
  canvas.addEventListener("pointerdown", (event) => show(pointOf(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = STEP[event.key];
    if (!step) return;
    event.preventDefault();
    const clamped = (value, low, high) => Math.min(Math.max(value, low), high);
    show({
      x: clamped(point.x + step[0] * 0.05, AREA.left, AREA.right),
      y: clamped(point.y + step[1] * 0.05, AREA.bottom, AREA.top),
    });
  });
  for (const choice of document.getElementsByName("shown")) {
    choice.addEventListener("change", draw);
  }
  new ResizeObserver(() => { draw(); mark(); }).observe(canvas);
}

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`there is no ${name}`);
  return answer;
}

function percent(share) {
  return `${(100 * share).toFixed(0)}\u00a0%`; // a space that no line breaks at
}

// Runs points [batch, 2] and returns each output as an array of numbers.
function predict(points) {
  const input = new ort.Tensor("float32", points, [points.length / 2, 2]);
  const found = running.then(() => session.run({ [session.inputNames[0]]: input }));
  running = found.catch(() => {});
  return found.then((outputs) =>
    Object.fromEntries(Object.entries(outputs).map(([name, each]) => [name, each.data])));
}

function grid() {
  const points = new Float32Array(2 * COLUMNS * ROWS);
  for (let row = 0; row < ROWS; row += 1) {
    for (let column = 0; column < COLUMNS; column += 1) {
      const place = 2 * (row * COLUMNS + column);
      points[place] = AREA.left + ((column + 0.5) / COLUMNS) * (AREA.right - AREA.left);
      points[place + 1] = AREA.top - ((row + 0.5) / ROWS) * (AREA.top - AREA.bottom);
    }
  }
  return points;
}

function between(colours, share) {
  const scaled = Math.min(Math.max(share, 0), 1) * (colours.length - 1);
  const first = Math.min(Math.floor(scaled), colours.length - 2);
  const rest = scaled - first;
  return colours[first].map((value, i) => value + rest * (colours[first + 1][i] - value));
}

function draw() {
  const shown = document.querySelector("[name=shown]:checked").value;
  const colours = shown === "mean" ? [CLASSES[0], WHITE, CLASSES[1]] : HEAT;
  // The epistemic part is small beside the total; its scale ends at its own largest value.
  const most = shown === "epistemic" ? Math.max(...map.epistemic) : NATS;
  const share = shown === "mean"
    ? (i) => map.mean[2 * i + 1]
    : (i) => map[shown][i] / most;

  const image = new ImageData(COLUMNS, ROWS);
  for (let i = 0; i < COLUMNS * ROWS; i += 1) {
    image.data.set([...between(colours, share(i)), 255], 4 * i);
  }
  const small = new OffscreenCanvas(COLUMNS, ROWS);
  small.getContext("2d").putImageData(image, 0, 0);

  const dots = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * dots);
  canvas.height = Math.round(canvas.clientHeight * dots);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  hatch(dots);
  pen.setTransform(dots, 0, 0, dots, 0, 0);
  moons.x.forEach((where, i) => {
    const [left, top] = pixels({ x: where[0], y: where[1] });
    pen.beginPath();
    pen.arc(left, top, 2.5, 0, 2 * Math.PI);
    pen.fillStyle = `rgb(${CLASSES[moons.y[i]]})`;
    pen.strokeStyle = "white";
    pen.fill();
    pen.stroke();
  });

  at("ramp").style.background = `linear-gradient(to right, ${
    colours.map((colour) => `rgb(${colour})`).join(",")})`;
  at("low").textContent = shown === "mean" ? moons.classes[0] : "0";
  at("high").textContent = shown === "mean" ? moons.classes[1] : `${most.toFixed(2)} nats`;
  at("explanation").textContent = EXPLANATIONS[shown];
}

// Draws diagonal lines where the network gives no answer.
function hatch(dots) {
  const mask = new ImageData(COLUMNS, ROWS);
  for (let i = 0; i < COLUMNS * ROWS; i += 1) mask.data[4 * i + 3] = map.answer[i] ? 0 : 255;
  const small = new OffscreenCanvas(COLUMNS, ROWS);
  small.getContext("2d").putImageData(mask, 0, 0);

  const lines = new OffscreenCanvas(canvas.width, canvas.height);
  const ink = lines.getContext("2d");
  ink.drawImage(small, 0, 0, canvas.width, canvas.height);
  ink.globalCompositeOperation = "source-in";
  const tile = new OffscreenCanvas(8 * dots, 8 * dots);
  const line = tile.getContext("2d");
  line.strokeStyle = "rgba(20, 20, 30, 0.4)";
  line.lineWidth = dots;
  line.beginPath();
  for (const shift of [-8, 0, 8]) {
    line.moveTo(shift * dots, 8 * dots);
    line.lineTo((shift + 8) * dots, 0);
  }
  line.stroke();
  ink.fillStyle = ink.createPattern(tile, "repeat");
  ink.fillRect(0, 0, lines.width, lines.height);
  pen.drawImage(lines, 0, 0);
}

function pixels({ x, y }) {
  return [
    ((x - AREA.left) / (AREA.right - AREA.left)) * canvas.clientWidth,
    ((AREA.top - y) / (AREA.top - AREA.bottom)) * canvas.clientHeight,
  ];
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: AREA.left + ((event.clientX - box.left) / box.width) * (AREA.right - AREA.left),
    y: AREA.top - ((event.clientY - box.top) / box.height) * (AREA.top - AREA.bottom),
  };
}

function mark() {
  const [left, top] = pixels(point);
  at("cross").style.left = `${left}px`;
  at("cross").style.top = `${top}px`;
  at("cross").hidden = false;
}

async function show(where) {
  point = where;
  mark();
  const found = await predict(new Float32Array([where.x, where.y]));
  if (where !== point) return; // the pointer is elsewhere by now
  const [first, second] = found.mean;
  const name = moons.classes[first >= second ? 0 : 1];
  at("answer").textContent = found.answer[0]
    ? `${name}, ${percent(Math.max(first, second))}`
    : "No answer: it is not sure enough.";
  at("point").textContent = `${where.x.toFixed(2)}, ${where.y.toFixed(2)}`;
  at("first").textContent = first.toFixed(3);
  at("second").textContent = second.toFixed(3);
  for (const key of ["total", "aleatoric", "epistemic"]) {
    at(key).textContent = found[key][0].toFixed(3);
  }
}
