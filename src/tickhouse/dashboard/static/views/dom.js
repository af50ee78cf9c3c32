// Small helpers for elements. Text is always set as text, never as markup.

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element #${id}`);
  return /** @type {T} */ (element);
}

/**
 * @param {string} tag
 * @param {Record<string, string>} [attributes] `text` becomes the text content
 * @param {(Node | string)[]} [children]
 */
export function make(tag, attributes = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** @param {HTMLElement} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A segmented control: one of several choices, by mouse, arrow keys or number.
 *
 * @param {HTMLElement} host
 * @param {[string, string][]} choices value and label
 * @param {(value: string) => void} onChoose
 * @returns {(value: string) => void} shows a choice
 */
export function segments(host, choices, onChoose) {
  const buttons = choices.map(([value, label]) => {
    const button = /** @type {HTMLButtonElement} */ (make("button", { type: "button", role: "radio", "data-value": value, text: label }));
    button.addEventListener("click", () => onChoose(value));
    return button;
  });
  host.replaceChildren(...buttons);
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = buttons.findIndex((button) => button.getAttribute("aria-checked") === "true");
    const next = buttons[(at + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  return (value) => {
    for (const button of buttons) {
      const isChosen = button.dataset.value === value;
      button.setAttribute("aria-checked", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    }
  };
}

/**
 * Covers a panel: why there is nothing to see, and what to do.
 *
 * @param {string} name `data-cover` of the cover
 * @param {null | {title: string, text?: string, code?: string, isBusy?: boolean, retry?: () => void}} content
 */
export function cover(name, content) {
  const element = /** @type {HTMLElement} */ (document.querySelector(`[data-cover="${name}"]`));
  element.hidden = content === null;
  if (content === null) return element.replaceChildren();
  const parts = [];
  if (content.isBusy) parts.push(make("span", { class: "pulse", "aria-hidden": "true" }));
  parts.push(make("strong", { text: content.title }));
  if (content.text) parts.push(make("p", { text: content.text }));
  if (content.code) parts.push(make("code", { text: content.code }));
  if (content.retry) {
    const button = make("button", { type: "button", text: "Try again" });
    button.addEventListener("click", content.retry);
    parts.push(button);
  }
  element.replaceChildren(...parts);
}

/** @param {string} name a CSS variable */
export const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
