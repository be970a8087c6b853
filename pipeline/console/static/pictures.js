// Pictures: what came in, with boxes and masks over it. Only pixels are shown, from this origin or from base64 of a PNG.

import { h, s, colourOf, cut, left, seen } from "./dom.js";
import { percent } from "./predictions.js";

/** Base64 of a PNG or JPEG as an address for an <img>; null for anything else. */
export function pictureOf(text) {
  if (typeof text !== "string" || text.length < 20 || !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return null;
  if (text.startsWith("iVBORw0KGgo")) return `data:image/png;base64,${text}`;
  return text.startsWith("/9j/") ? `data:image/jpeg;base64,${text}` : null;
}

export const pictureAt = (id) => `/api/picture?id=${encodeURIComponent(id)}`;
const gone = (event) => event.target.remove();

export const thumbnail = (story) => story.has_picture && h("img.thumb", { src: pictureAt(story.message_id), alt: "", loading: "lazy", width: 44, height: 44, onerror: gone });
export const picture = (story) => story.has_picture && h("img.picture", { src: pictureAt(story.message_id), alt: "the picture that came in", onerror: gone });

const legend = (list) => h("ul.named", {}, list.slice(0, 30).map((each) => h("li", {}, h(`span.chip.${colourOf(each.label)}`, { dir: "auto" }, seen(each.label)), typeof each.score === "number" && h("small", {}, ` ${percent(each.score)}`), each.box && [each.box.xmin, each.box.ymin, each.box.xmax, each.box.ymax].every(Number.isFinite) && h("small", {}, ` at ${each.box.xmin}, ${each.box.ymin}, ${each.box.xmax - each.box.xmin} × ${each.box.ymax - each.box.ymin}`))), left(list, 30, ", in the result as published"));

/** Boxes are in pixels of the picture as it was sent: they are drawn once it says how large it is. */
export function boxes(list, story) {
  if (!story.has_picture) return legend(list);
  const frame = h("div.overlaid"), image = h("img", { src: pictureAt(story.message_id), alt: "the picture, with what was found in it", onerror: gone, onload: () => {
    const { naturalWidth: width, naturalHeight: height } = image, scale = width / (image.clientWidth || width);
    frame.append(s("svg.boxes", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, list.slice(0, 100).map(({ label, score, box }) => {
      const numbers = [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin];
      if (!numbers.every(Number.isFinite)) return null;
      const [x, y, w, tall] = numbers;
      return s(`g.${colourOf(label)}`, {}, s("rect.box", { x, y, width: Math.max(0, w), height: Math.max(0, tall) }),
        s("text.box-name", { x: Math.max(0, x) + 5 * scale, y: Math.max(0, y) + 16 * scale, "font-size": 13 * scale }, cut(typeof score === "number" ? `${label} ${percent(score)}` : label, 40)));
    })));
  } });
  frame.append(image);
  return h("div.stack", {}, frame, legend(list));
}

/** Masks are pictures of their own, white where the thing is: each is laid over the picture in its label's colour. */
export function masks(list, story) {
  const layers = list.slice(0, 20).map((each) => {
    const layer = h(`div.mask.${colourOf(each.label)}`, { title: each.label });
    layer.style.maskImage = `url("${pictureOf(each.mask)}")`;
    return layer;
  });
  const base = story.has_picture ? h("img", { src: pictureAt(story.message_id), alt: "the picture, with what was found in it", onerror: gone }) : h("img.bare", { src: pictureOf(list[0].mask), alt: "the first mask" });
  return h("div.stack", {}, h("div.overlaid", {}, base, layers), legend(list));
}
