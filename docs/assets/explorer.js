// The page of the flow explorer: controls, pictures and words.
const $ = (name) => document.getElementById(`explorer${name ? `-${name}` : ""}`)
const form = $("")
const state = { digit: 0, weights: [], time: 0, switched: null, reversed: false }
let model, digits, frames, codes, back, stale = true, running = false, again = false, playing = 0

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes)
  made.append(...children)
  return made
}

function paint(canvas, frame) {
  const [, height, width] = model.about.size
  const image = new ImageData(width, height)
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = Math.round(255 * frame[channel * width * height + pixel])
    }
    image.data[4 * pixel + 3] = 255
  }
  canvas.getContext("2d").putImageData(image, 0, 0)
}

/** The exported test digits as arrays [3 · 28 · 28] in [0, 1]. */
async function readDigits() {
  const [, height, width] = model.about.size
  const image = new Image()
  image.src = new URL("explorer/digits.png", import.meta.url).href
  await image.decode()
  const context = element("canvas", { width: image.width, height }).getContext("2d", { willReadFrequently: true })
  context.drawImage(image, 0, 0)
  return Array.from({ length: image.width / width }, (_, i) => {
    const { data } = context.getImageData(i * width, 0, width, height)
    const plane = (channel) => Float32Array.from({ length: width * height }, (_, p) => data[4 * p + channel] / 255)
    return [0, 1, 2].flatMap((channel) => [...plane(channel)])
  })
}

/** Speeds of every step: the sliders', or those of two flows one after the other. */
function schedule() {
  const { steps } = model.about
  return Array.from({ length: steps }, (_, n) => {
    if (!state.switched) return [...state.weights]
    const active = state.switched[n < steps / 2 ? 0 : 1]
    return state.weights.map((g, k) => (k === active ? g : 0))
  })
}

async function compute() {
  const steps = schedule()
  if (stale) {
    stale = false
    codes = await model.forward(await model.encode(digits[state.digit]), steps)
    frames = await model.decode(codes)
    back = state.reversed ? await model.backward(codes.at(-1), steps) : null
    const returned = back && (await model.decode(back))
    drawStrip(returned)
    say(returned)
  }
  const frame = Math.floor(state.time)
  const path = back ?? codes
  const weights = steps[Math.min(frame, steps.length - 1)]
  const code = await model.between(path[frame], weights, frame, state.time - frame)
  paint($("image"), (await model.decode([code]))[0])
  for (const cell of form.querySelectorAll("[data-frame]")) {
    const here = Number(cell.dataset.frame) === Math.round(state.time) && (cell.dataset.way === "back") === Boolean(back)
    cell.classList.toggle("explorer-here", here)
  }
}

/** Draw again; what changes while a drawing is under way is drawn next, and nothing in between. */
async function draw(path = true) {
  stale ||= path
  again = true
  if (running) return
  running = true
  form.setAttribute("aria-busy", "true")
  try {
    while (again) {
      again = false
      await compute()
    }
  } catch (error) {
    fail(error)
  }
  running = false
  form.setAttribute("aria-busy", "false")
}

function drawStrip(returned) {
  const [, height, width] = model.about.size
  const row = (name, all, way) => {
    const cells = all.map((frame, n) => {
      const canvas = element("canvas", { width, height })
      paint(canvas, frame)
      const cell = element("span", { className: "explorer-frame" }, canvas, String(n))
      Object.assign(cell.dataset, { frame: n, way })
      return cell
    })
    const line = element("div", { className: "explorer-row" }, ...cells)
    line.setAttribute("role", "img")
    line.setAttribute("aria-label", `${name}: ${all.length} frames`)
    return element("div", {}, element("span", { className: "explorer-name", textContent: name }), line)
  }
  const rows = [row("Forward", frames, "forward")]
  if (returned) rows.push(row("Way back, from right to left", returned, "back"))
  $("strip").replaceChildren(...rows)
}

function say(returned) {
  const { flows, steps } = model.about
  const moving = flows.filter((_, k) => state.weights[k] > 0)
  let text = moving.length ? `${moving.join(" and ")} at work.` : "All flows rest: the picture stays as it is."
  if (state.switched) {
    const [first, second] = state.switched.map((k) => flows[k])
    text = `${first} for ${Math.ceil(steps / 2)} frames, then ${second}.`
  }
  const status = $("status")
  delete status.dataset.difference
  if (returned) {
    const difference = Math.max(...returned[0].map((value, i) => Math.abs(value - frames[0][i])))
    status.dataset.difference = difference
    text += ` Back at frame 0 no pixel differs from the first picture by more than ${difference.toExponential(1)} (of 1).`
  }
  status.textContent = text.charAt(0).toUpperCase() + text.slice(1)
}

function show() {
  const { flows } = model.about
  flows.forEach((name, k) => {
    const slider = $(`flow-${k}`)
    slider.value = state.weights[k]
    slider.nextElementSibling.textContent = state.weights[k].toFixed(1)
  })
  $("time").value = state.time
  $("time").nextElementSibling.textContent = state.time.toFixed(1)
  $("reverse").setAttribute("aria-pressed", state.reversed)
  $("image").setAttribute("aria-label", `Decoded frame at time ${state.time.toFixed(1)}`)
}

function change(values, path = true) {
  Object.assign(state, values)
  show()
  return draw(path)
}

function play(from, to) {
  cancelAnimationFrame(playing)
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return change({ time: to }, false)
  const started = performance.now()
  const seconds = 2.5
  const advance = (now) => {
    const part = Math.min(1, Math.max(0, (now - started) / (1000 * seconds)))
    // The slider's own step, so that it shows what is drawn.
    change({ time: Number((from + part * (to - from)).toFixed(1)) }, false)
    if (part < 1) playing = requestAnimationFrame(advance)
  }
  playing = requestAnimationFrame(advance)
}

const rest = () => model.about.flows.map(() => 0)
const start = () => rest().map((_, k) => (k === 1 ? 1 : 0))
const pair = () => [$("first"), $("second")].map((select) => Number(select.value))

function addDigits() {
  const { size, labels } = model.about
  digits.forEach((digit, i) => {
    const name = labels ? `digit ${labels[i]}` : `digit number ${i + 1}`
    const radio = element("input", { type: "radio", name: "digit", value: i, checked: i === 0 })
    radio.setAttribute("aria-label", name)
    radio.addEventListener("change", () => change({ digit: i }))
    const canvas = element("canvas", { width: size[2], height: size[1] })
    paint(canvas, digit)
    $("digits").append(element("label", { title: name }, radio, canvas))
  })
}

function addSliders() {
  model.about.flows.forEach((name, k) => {
    const id = `explorer-flow-${k}`
    const slider = element("input", { type: "range", id, min: 0, max: 2, step: 0.1 })
    slider.addEventListener("input", () => {
      const weights = state.weights.map((g, other) => (other === k ? Number(slider.value) : g))
      change({ weights, switched: state.switched?.includes(k) ? state.switched : null })
    })
    const label = element("label", { htmlFor: id, textContent: name })
    $("flows").append(element("div", { className: "explorer-slider" }, label, slider, element("output", { htmlFor: id, ariaLive: "off" })))
    for (const [select, chosen] of [["first", 1], ["second", 2]]) {
      $(select).append(element("option", { value: k, textContent: name, selected: k === chosen }))
    }
  })
}

function connect() {
  const { steps } = model.about
  const both = () => rest().map((_, k) => (pair().includes(k) ? 1 : 0))
  $("time").max = steps
  $("time").addEventListener("input", () => {
    cancelAnimationFrame(playing)
    change({ time: Number($("time").value) }, false)
  })
  $("switch").addEventListener("click", () => {
    change({ weights: both(), switched: pair(), reversed: false })
    play(0, steps)
  })
  $("superpose").addEventListener("click", () => {
    change({ weights: both(), switched: null, reversed: false })
    play(0, steps)
  })
  $("play").addEventListener("click", () => (state.reversed ? play(steps, 0) : play(0, steps)))
  $("reverse").addEventListener("click", () => {
    change({ reversed: !state.reversed })
    if (state.reversed) play(steps, 0)
  })
  $("reset").addEventListener("click", () => {
    cancelAnimationFrame(playing)
    change({ weights: start(), time: 0, switched: null, reversed: false })
  })
  form.addEventListener("submit", (event) => event.preventDefault())
}

function fail(error) {
  form.hidden = true
  const able = "WebAssembly" in globalThis && "DecompressionStream" in globalThis
  const remedy = able ? "" : "It needs WebAssembly with SIMD and DecompressionStream, which browsers have since 2023."
  $("message").textContent = `The explorer cannot run here (${error.message ?? error}). ${remedy}`
  $("message").hidden = false
}

try {
  // A static import that fails would leave no message.
  const { Model } = await import("./explorer-model.js")
  model = await Model.load()
  digits = await readDigits()
  state.weights = start()
  addDigits()
  addSliders()
  connect()
  $("caption").textContent =
    `Data: ${model.about.data}, test digits that the model has not seen. Model: the supervised quick preset, so that each ` +
    "flow bears the name of what it was shown. Command: examples/export_onnx.py, below."
  show()
  await draw()
  $("message").hidden = true
  form.hidden = false
} catch (error) {
  fail(error)
}
