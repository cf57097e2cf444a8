// The two passes of `slice.js`. First the photo is brought to the screen's size, with its guide beside it; this is done
// again only when it is moved or zoomed. Then grid, areas and strength are applied: once for every move of a slider.

const HEAD = `#version 300 es
precision highp float;
precision highp sampler3D;
precision highp sampler2DArray;
`;

const COLOURS = `
vec3 to_light(vec3 v) {
  vec3 a = abs(v);
  return sign(v) * mix(a / 12.92, pow((a + 0.055) / 1.055, vec3(2.4)), step(0.04045, a));
}
vec3 from_light(vec3 v) {
  vec3 a = abs(v);
  return sign(v) * mix(a * 12.92, 1.055 * pow(a, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, a));
}
const mat3 P3_TO_SRGB = mat3(1.2249401763, -0.0420569547, -0.0196375546, -0.2249401763, 1.0420569547, -0.0786360456,
  0.0, 0.0, 1.0982736001);
const mat3 SRGB_TO_P3 = mat3(0.8224619687, 0.0331941989, 0.0170826307, 0.1775380313, 0.9668058011, 0.0723974407,
  0.0, 0.0, 0.9105199286);
`;

export const VERTEX = `#version 300 es
in vec2 corner;
uniform vec4 box;  // where on the target: x, y, width, height, from 0 to 1
void main() { gl_Position = vec4((box.xy + corner * box.zw) * 2.0 - 1.0, 0.0, 1.0); }
`;

// Photo -> its pixels at the view's size, and the guide; ALPHA: its transparency. SMALLER: fewer pixels than the photo has; WIDE: its colours are
// Display P3; KNOTS: of the guide's curve, 0 for none
export const SAMPLE = HEAD + COLOURS + `
uniform sampler2D tile;
uniform vec4 tile_box;  // x, y of the tile's first texel in the photo, its size in texels
uniform vec4 view;      // photo pixel at the target's corner, photo pixels per target pixel
uniform mat3 matrix;
uniform vec3 matrix_bias;
#if KNOTS > 0
uniform vec2 ramps[KNOTS * 3];  // threshold and slope
#endif
uniform float bias;
out vec4 result;

#if ALPHA
#define PART aaa
#else
#define PART rgb
#endif
vec3 read(vec2 at, float level) { return textureLod(tile, (at - tile_box.xy) / tile_box.zw, level).PART; }

void main() {
  vec2 at = view.xy + gl_FragCoord.xy * view.z;
  vec3 colour;
#if SMALLER == 0
    // As large as the photo or larger: its own pixels; softened between them, but seen as pixels from 4 on
    vec2 inside = fract(at - 0.5), sharp = clamp((inside - 0.5) / max(view.z, 1e-3) + 0.5, 0.0, 1.0);
    vec2 where = floor(at - 0.5) + 0.5 + (view.z > 0.25 ? inside : sharp);
    colour = read(view.z == 1.0 ? floor(at) + 0.5 : where, 0.0);
#else
    // The mean of four readings from a level that is not yet too small
    float level = floor(log2(view.z)), step = view.z * 0.25;
    colour = 0.25 * (read(at + vec2(-step, -step), level) + read(at + vec2(step, -step), level)
      + read(at + vec2(-step, step), level) + read(at + vec2(step, step), level));
#endif
#if WIDE
  colour = from_light(P3_TO_SRGB * to_light(colour));
#endif
  float guide = bias;
#if KNOTS > 0
    vec3 y = matrix * colour + matrix_bias;
    for (int k = 0; k < KNOTS; k++) {
      guide += ramps[k].y * max(y.r - ramps[k].x, 0.0) + ramps[KNOTS + k].y * max(y.g - ramps[KNOTS + k].x, 0.0)
        + ramps[2 * KNOTS + k].y * max(y.b - ramps[2 * KNOTS + k].x, 0.0);
    }
#endif
  result = vec4(colour, clamp(guide, 0.0, 1.0));
}
`;

// The view -> the retouched view. MODE: 0 the photo, 1 grids, 2 another picture, 3 a colour table; AREAS: how many;
// EXTRAS: clipping, overlay or a wide screen; ALPHA: the photo has transparency. Each its own program: without a graphics processor, branches cost.
export const RETOUCH = HEAD + COLOURS + `
uniform sampler2D photo, other;   // the view, with guide; the same of a picture that was retouched as a whole
#if ALPHA
uniform sampler2D alphas;
#endif
uniform sampler3D grid, table;    // grid - identity: x, y, and depth for each row of each layer
uniform sampler2DArray masks;
uniform vec4 view;                // as above; and the target's height
uniform vec2 size;
uniform bool flip;                // the screen's first row is its last
uniform float strength, depth;    // depth of one grid
uniform float shoulder;           // see roll_off in Python; 0 for none
#if AREAS > 0
uniform bool limits;              // the photo has 8 bits: every sheet that is laid over it ends at black and white
uniform ivec4 kinds[AREAS];          // kind (0 painted, 1 tone, 2 colour), inverted, layer of the mask
uniform vec4 ranges[AREAS];          // low, high, softness
#endif
uniform vec3 table_low, table_high;
uniform float table_size;
uniform float split;              // left of it the photo is plain
uniform bool clipping, wide_screen;
uniform int overlay;              // the area that is shown in red, or -1
out vec4 result;

vec3 sliced(vec3 p, vec2 at, float guide, int layer) {
  float z = clamp(guide * depth, 0.5, depth - 0.5), planes = depth * 3.0 * float(AREAS + 1);
  vec3 difference;
  for (int k = 0; k < 3; k++) {
    vec4 row = texture(grid, vec3(at, (z + depth * float(3 * layer + k)) / planes));
    difference[k] = dot(row, vec4(p, 1.0));
  }
  vec3 y = p + strength * difference;
  if (shoulder == 0.0) return y;
  bvec3 up = greaterThan(y, p);
  vec3 room = max(mix(p, 1.0 - p, vec3(up)) - 1.0 / 255.0, 0.0), moved = abs(y - p);
  float rest = 1.0 - shoulder;
  vec3 taken = room * (1.0 - rest * rest * room / max(moved + (rest - shoulder) * room, 1e-6));
  return mix(y, p + mix(-taken, taken, vec3(up)), vec3(greaterThan(moved, shoulder * room)));
}

#if AREAS > 0
float ramp(float distance, float width) {
  if (width <= 0.0) return distance <= 0.0 ? 1.0 : 0.0;
  float t = clamp(1.0 - distance / width, 0.0, 1.0);
  return t * t * (3.0 - 2.0 * t);
}

float hue(vec3 p, float chroma) {
  float scale = 60.0 / max(chroma, 1e-6), most = max(p.r, max(p.g, p.b));
  float h = most == p.r ? (p.g - p.b) * scale : most == p.g ? 120.0 + (p.b - p.r) * scale : 240.0 + (p.r - p.g) * scale;
  return mod(h, 360.0);
}

float inside(vec3 p, vec2 at, int area) {
  ivec4 kind = kinds[area];
  vec4 range = ranges[area];
  float mask;
  if (kind.x == 1) {
    float luma = dot(p, vec3(0.299, 0.587, 0.114));
    mask = ramp(max(range.x - luma, luma - range.y), range.z);
  } else if (kind.x == 2) {
    float chroma = max(p.r, max(p.g, p.b)) - min(p.r, min(p.g, p.b));
    float reach = mod(range.y - range.x, 360.0);
    reach = (reach == 0.0 ? 360.0 : reach) * 0.5;
    float far = abs(mod(hue(p, chroma) - range.x - reach + 180.0, 360.0) - 180.0) - reach;
    mask = ramp(far, range.z) * ramp(0.12 - chroma, 0.08);
  } else {
    mask = texture(masks, vec3(at, float(kind.z))).r;
  }
  return kind.y == 1 ? 1.0 - mask : mask;
}
#endif

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, flip ? view.w - gl_FragCoord.y : gl_FragCoord.y);
  vec2 where = view.xy + pixel * view.z;
  if (any(lessThan(where, vec2(0.0))) || any(greaterThan(where, size))) {
    result = vec4(0.0);
    return;
  }
  vec4 texel = texelFetch(photo, ivec2(pixel), 0);
  vec3 p = texel.rgb, shown = p;
  // Cells are spread from the first pixel's centre to the last one's
  vec2 at = (where - 0.5) / max(size - 1.0, vec2(1.0));
  at = mix(at, vec2(0.5), vec2(lessThanEqual(size, vec2(1.0))));
#if MODE == 1
  shown = sliced(p, at, texel.a, 0);
#if AREAS > 0
  if (limits) shown = clamp(shown, 0.0, 1.0);
  for (int area = 0; area < AREAS; area++) {
    float mask = inside(p, where / size, area);
    vec3 above = sliced(p, at, texel.a, area + 1);
    if (limits) above = clamp(above, 0.0, 1.0);
    shown = mix(shown, above, mask);
  }
#endif
#elif MODE == 2
  shown = mix(p, texelFetch(other, ivec2(pixel), 0).rgb, strength);
#elif MODE == 3
  vec3 node = clamp((p - table_low) / (table_high - table_low), 0.0, 1.0);
  shown = mix(p, texture(table, (node * (table_size - 1.0) + 0.5) / table_size).rgb, strength);
#endif
  if (pixel.x < split) shown = p;
  vec3 limited = clamp(shown, 0.0, 1.0);
#if EXTRAS
#if AREAS > 0
  if (overlay >= 0) limited = mix(limited, vec3(1.0, 0.2, 0.2), 0.55 * inside(p, where / size, overlay));
#endif
  if (clipping && any(greaterThan(shown, vec3(254.5 / 255.0)))) limited = vec3(1.0, 0.15, 0.1);
  if (clipping && all(lessThan(shown, vec3(0.5 / 255.0)))) limited = vec3(0.15, 0.3, 1.0);
  if (wide_screen && limited == clamp(shown, 0.0, 1.0)) limited = from_light(SRGB_TO_P3 * to_light(shown));
#endif
  result = vec4(clamp(limited, 0.0, 1.0), 1.0);
#if ALPHA
  result.a = texelFetch(alphas, ivec2(pixel), 0).r;
  if (flip) { // on the screen, over squares
    vec2 square = floor(pixel / 10.0);
    result = vec4(mix(vec3(0.55 + 0.25 * mod(square.x + square.y, 2.0)), result.rgb, result.a), 1.0);
  }
#endif
}
`;
