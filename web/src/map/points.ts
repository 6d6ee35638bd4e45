// Points on a canvas: by WebGL, and without a graphics card by hand. Nothing of it is made into code at run time, as the
// strict policy of the page asks.

import type { Colouring } from "./colours";
import { SIDE, type MapData } from "./data";

/** What of the map is seen: pixels of the canvas are `scale` × place + offset, y downwards. */
export interface View {
  scale: number;
  x: number;
  y: number;
}

export interface Painter {
  colour(colouring: Colouring, only: number | null): void;
  draw(view: View, size: number): void;
}

const VERTEX = `#version 300 es
in vec2 place; in float number;
uniform vec2 canvas; uniform vec3 view; uniform float size, above, only;
uniform sampler2D palette;
out vec4 colour;
void main() {
  bool known = number > 0.5;
  bool chosen = only < -0.5 || abs(number - only) < 0.5;
  colour = texelFetch(palette, ivec2(int(number + 0.5), 0), 0);
  if (!chosen) colour = texelFetch(palette, ivec2(0, 0), 0);
  bool top = known && chosen;
  vec2 at = (vec2(place.x, 1.0 - place.y) * ${SIDE}.0 * view.x + view.yz) / canvas * 2.0 - 1.0;
  gl_Position = top == (above > 0.5) ? vec4(at.x, -at.y, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = top ? size : max(1.0, size * 0.8);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 colour; out vec4 shown;
void main() {
  float far = length(gl_PointCoord - 0.5) * 2.0;
  float there = 1.0 - smoothstep(0.7, 1.0, far);
  if (there <= 0.0) discard;
  shown = vec4(colour.rgb, there * 0.9);
}`;

const channels = (colour: string): [number, number, number] => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)) as [number, number, number];

class ByWebGl implements Painter {
  private readonly program: WebGLProgram;
  private readonly numbers: WebGLBuffer;
  private only = -1;

  constructor(private readonly canvas: HTMLCanvasElement, private readonly gl: WebGL2RenderingContext, private readonly data: MapData) {
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
      const shader = gl.createShader(kind) as WebGLShader;
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(this.program) ?? "no program");
    gl.useProgram(this.program);
    const places = new Uint16Array(2 * data.items);
    for (let row = 0; row < data.items; row++) {
      places[2 * row] = data.x[row]!;
      places[2 * row + 1] = data.y[row]!;
    }
    this.attribute("place", places, 2, gl.UNSIGNED_SHORT, true);
    this.numbers = this.attribute("number", new Uint8Array(data.items), 1, gl.UNSIGNED_BYTE, false);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  private attribute(name: string, values: ArrayBufferView<ArrayBuffer>, size: number, type: number, normalised: boolean): WebGLBuffer {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
    const at = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, normalised, 0, 0);
    return buffer;
  }

  colour(colouring: Colouring, only: number | null): void {
    const { gl } = this;
    this.only = only ?? -1;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.numbers);
    gl.bufferData(gl.ARRAY_BUFFER, colouring.numbers as Uint8Array<ArrayBuffer>, gl.DYNAMIC_DRAW);
    const texels = new Uint8Array(256 * 4);
    colouring.palette.forEach((colour, index) => texels.set([...channels(colour), 255], 4 * index));
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, texels);
  }

  draw(view: View, size: number): void {
    const { gl, canvas, program } = this;
    const place = (name: string) => gl.getUniformLocation(program, name);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(place("canvas"), canvas.width, canvas.height);
    gl.uniform3f(place("view"), view.scale, view.x, view.y);
    gl.uniform1f(place("size"), size);
    gl.uniform1f(place("only"), this.only);
    for (const above of [0, 1]) {
      gl.uniform1f(place("above"), above);
      gl.drawArrays(gl.POINTS, 0, this.data.items);
    }
  }
}

/** Where there is no graphics card: faster than a browser that makes one up. */
class ByHand implements Painter {
  private image: ImageData | null = null;
  private readonly x: Uint16Array; // in the order they are drawn in
  private readonly y: Uint16Array;
  private readonly colours: Uint32Array;

  constructor(private readonly canvas: HTMLCanvasElement, private readonly context: CanvasRenderingContext2D, private readonly data: MapData) {
    this.x = new Uint16Array(data.items);
    this.y = new Uint16Array(data.items);
    this.colours = new Uint32Array(data.items);
  }

  colour({ numbers, palette }: Colouring, only: number | null): void {
    const { data, x, y } = this;
    const colours = palette.map((colour) => {
      const [red, green, blue] = channels(colour);
      return (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
    });
    let at = 0;
    for (const above of [false, true]) {
      for (let row = 0; row < data.items; row++) {
        const number = numbers[row]!;
        const top = number > 0 && (only === null || number === only);
        if (top !== above) continue;
        [x[at], y[at]] = [data.x[row]!, SIDE - data.y[row]!];
        this.colours[at++] = colours[top ? number : 0]!;
      }
    }
  }

  draw(view: View, size: number): void {
    const { data, canvas, x, y, colours } = this;
    const { width, height } = canvas;
    if (!width || !height) return;
    if (this.image?.width !== width || this.image.height !== height) this.image = this.context.createImageData(width, height);
    const pixels = new Uint32Array(this.image.data.buffer).fill(0);
    const half = Math.max(1, Math.round(size / 2));
    const reach = Array.from({ length: 2 * half }, (_, line) => Math.round(Math.sqrt(half ** 2 - (line - half + 0.5) ** 2))); // of a disc's lines
    for (let at = 0; at < data.items; at++) {
      const left = Math.round(x[at]! * view.scale + view.x);
      const top = Math.round(y[at]! * view.scale + view.y) - half;
      if (left < half || top < 0 || left >= width - half || top >= height - 2 * half) continue;
      const colour = colours[at]!;
      for (let line = 0; line < 2 * half; line++) {
        const middle = (top + line) * width + left;
        for (let pixel = middle - reach[line]!; pixel < middle + reach[line]!; pixel++) pixels[pixel] = colour;
      }
    }
    this.context.putImageData(this.image, 0, 0);
  }
}

const NO_CARD = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Tried on another canvas: one that WebGL drew on can be drawn on by nothing else. */
function hasCard(): boolean {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const named = gl.getExtension("WEBGL_debug_renderer_info")?.UNMASKED_RENDERER_WEBGL ?? gl.RENDERER;
  const name = String(gl.getParameter(named));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !NO_CARD.test(name);
}

export function painterOn(canvas: HTMLCanvasElement, data: MapData): Painter {
  const gl = hasCard() ? canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: false }) : null;
  if (gl) return new ByWebGl(canvas, gl, data);
  return new ByHand(canvas, canvas.getContext("2d") as CanvasRenderingContext2D, data);
}
