// The exported model: loading, rolling a code along the flows and back, decoding.
import * as ort from "./onnxruntime-web/ort.wasm.min.js"

const here = (path) => new URL(path, import.meta.url).href

async function bytes(path) {
  const response = await fetch(here(path))
  if (!response.ok) throw new Error(`${path}: ${response.status}`)
  return response.arrayBuffer()
}

async function wasm() {
  const content = await bytes("onnxruntime-web/ort-wasm-simd-threaded.wasm.gz")
  // Some hosts declare the encoding of .gz files, and the browser has unpacked them already.
  const [first, second] = new Uint8Array(content, 0, 2)
  if (first !== 0x1f || second !== 0x8b) return content
  return new Response(new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer()
}

const tensor = (data, shape) => new ort.Tensor("float32", Float32Array.from(data), shape)

/** The solution of a dense system, by elimination with pivots. */
function solve(matrix, right) {
  const n = right.length
  const rows = Array.from(right, (value, i) => [...matrix.slice(i * n, (i + 1) * n), value])
  for (let i = 0; i < n; i++) {
    let pivot = i
    for (let j = i + 1; j < n; j++) if (Math.abs(rows[j][i]) > Math.abs(rows[pivot][i])) pivot = j
    ;[rows[i], rows[pivot]] = [rows[pivot], rows[i]]
    for (let j = i + 1; j < n; j++) {
      const factor = rows[j][i] / rows[i][i]
      for (let k = i; k <= n; k++) rows[j][k] -= factor * rows[i][k]
    }
  }
  const solution = new Array(n)
  for (let i = n - 1; i >= 0; i--) {
    let sum = rows[i][n]
    for (let k = i + 1; k < n; k++) sum -= rows[i][k] * solution[k]
    solution[i] = sum / rows[i][i]
  }
  return solution
}

export class Model {
  static async load() {
    const model = new Model()
    ort.env.logLevel = "error"
    ort.env.wasm.numThreads = 1
    ort.env.wasm.wasmPaths = { mjs: here("onnxruntime-web/ort-wasm-simd-threaded.js") }
    const names = ["encoder", "step", "decoder"]
    const [about, binary, ...networks] = await Promise.all([
      bytes("explorer/explorer.json"),
      wasm(),
      ...names.map((name) => bytes(`explorer/${name}.onnx`)),
    ])
    model.about = JSON.parse(new TextDecoder().decode(about))
    ort.env.wasm.wasmBinary = binary
    for (const [i, name] of names.entries()) {
      model[name] = await ort.InferenceSession.create(networks[i], { executionProviders: ["wasm"] })
    }
    return model
  }

  /** Code of a frame [3 · 28 · 28] in [0, 1]. */
  async encode(frame) {
    return (await this.encoder.run({ frames: tensor(frame, [1, ...this.about.size]) })).z.data
  }

  /** Frames of codes, one array each. */
  async decode(codes) {
    const z = tensor(codes.flatMap((code) => [...code]), [codes.length, this.about.latent])
    const { data } = (await this.decoder.run({ z })).frames
    const length = data.length / codes.length
    return codes.map((_, i) => data.slice(i * length, (i + 1) * length))
  }

  async move(z, weights, frame) {
    const inputs = {
      z: tensor(z, [1, z.length]),
      weights: tensor(weights, [weights.length]),
      time: tensor([this.about.start + frame], []),
    }
    const outputs = await this.step.run(inputs)
    return { next: outputs.z_next.data, jacobian: outputs.jacobian.data }
  }

  /** Code at a time between two frames: a part of the step from the frame before. */
  async between(z, weights, frame, part) {
    return part ? (await this.move(z, weights.map((g) => part * g), frame)).next : z
  }

  /** Codes of all frames; `schedule` gives the speeds of every step. */
  async forward(z0, schedule) {
    const codes = [z0]
    for (const [n, weights] of schedule.entries()) codes.push((await this.move(codes[n], weights, n)).next)
    return codes
  }

  /** Codes of all frames, found from the last one by inverting every step with Newton's method. */
  async backward(last, schedule) {
    const codes = [last]
    for (let n = schedule.length - 1; n >= 0; n--) {
      const wanted = codes[0]
      let z = wanted
      for (let iteration = 0; iteration < 12; iteration++) {
        const { next, jacobian } = await this.move(z, schedule[n], n)
        const residual = Array.from(wanted, (value, i) => value - next[i])
        if (Math.max(...residual.map(Math.abs)) < 1e-6) break
        const change = solve(jacobian, residual)
        z = Float32Array.from(z, (value, i) => value + change[i])
      }
      codes.unshift(z)
    }
    return codes
  }
}
