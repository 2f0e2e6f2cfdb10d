// Making parts of the page.

export const TINY = 128; // pixels: smaller pictures are shown with crisp pixels

export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function option(value, text = value) {
  return element("option", { value, textContent: text });
}

/** A picture that is crisp when it is tiny. */
export function crisp(properties) {
  const picture = element("img", properties);
  picture.addEventListener("load", () => picture.classList.toggle("tiny", picture.naturalWidth < TINY));
  return picture;
}

/** A result in its frame, or a frame that waits for one. */
export function figure(name, result, label) {
  const frame = element("div", { className: result ? "frame" : "frame waiting" });
  if (result) {
    const picture = crisp({ src: result.image, alt: `${name}: ${result.prompt}` });
    picture.dataset.result = name;
    frame.append(picture);
  }
  const caption = element("figcaption", {}, element("span", { textContent: name }), element("span", { textContent: label }));
  return element("figure", {}, frame, caption);
}
