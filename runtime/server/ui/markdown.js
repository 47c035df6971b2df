// Markdown to DOM nodes, never through markup: what a model writes stays text, whatever it holds.
// A subset of CommonMark and of GitHub's tables. Links and images are shown with their address and
// cannot be followed: an answer could carry the conversation out in one.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( *)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const INLINE =
  /(?<!`)(`{1,3})(?!`)([^]*?[^`])\1(?!`)|\*\*(\S(?:[^]*?\S)?)\*\*|__(\S(?:[^]*?\S)?)__(?!\w)|\*([^\s*](?:[^*]*[^\s*])?)\*|~~(\S(?:[^]*?\S)?)~~|!?\[([^\]]*)\]\(([^\s)]*)(?:\s+"[^"]*")?\)/;
const DEEPEST = 8; // of lists, quotes and emphasis in one another
// Longer lines and paragraphs are shown as they stand: looking for marks in them takes time that
// grows with the square of their length.
const LONGEST = 4000;

/** A document fragment that shows `text`. */
export function render(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

function blocks(lines, depth) {
  const fragment = document.createDocumentFragment();
  let at = 0;
  while (at < lines.length) {
    const [node, next] = block(lines, at, depth);
    if (node) fragment.append(node);
    at = next;
  }
  return fragment;
}

/** The block that begins at a line, and the line after it. */
function block(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  if (line.length > LONGEST) return [element("p", line), at + 1];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    // The page's own headings come first: an answer's begin below them.
    return [element(`h${Math.min(heading[1].length + 2, 6)}`, inline(heading[2], 0)), at + 1];
  }
  if (RULE.test(line)) return [document.createElement("hr"), at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (line.includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1])) {
    return table(lines, at);
  }
  return paragraph(lines, at);
}

function code(lines, at, fence) {
  const end = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
  let last = at + 1;
  while (last < lines.length && !end.test(lines[last])) last += 1;
  const text = lines.slice(at + 1, last).join("\n");
  const pre = element("pre", element("code", text));
  pre.tabIndex = 0; // so that it can be scrolled without a mouse
  if (fence[2]) pre.dataset.language = fence[2];
  return [pre, last + 1];
}

function quote(lines, at, depth) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [element("blockquote", blocks(inner, depth + 1)), end];
}

function list(lines, at, depth) {
  const [, , bullet, number] = ITEM.exec(lines[at]);
  const node = document.createElement(bullet ? "ul" : "ol");
  if (number && number !== "1") node.start = Number(number);
  const indent = lines[at].search(/\S/);
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item || item[1].length !== indent || Boolean(item[2]) !== Boolean(bullet)) break;
    if (RULE.test(lines[at])) break;
    const inner = [item[4]];
    at += 1;
    while (at < lines.length && continues(lines, at, indent)) {
      inner.push(lines[at]);
      at += 1;
    }
    node.append(element("li", tight(blocks(unindented(inner), depth + 1))));
    while (at + 1 < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1])) at += 1;
  }
  return [node, at];
}

/** Whether a line belongs to the item above: it is indented further, or a gap before such a line. */
function continues(lines, at, indent) {
  const line = lines[at];
  if (line.trim()) return line.search(/\S/) > indent;
  const next = lines[at + 1];
  return next !== undefined && next.trim() !== "" && next.search(/\S/) > indent;
}

/** An item's lines, all but the first moved left as far as they go. */
function unindented([first, ...others]) {
  const margins = others.filter((line) => line.trim()).map((line) => line.search(/\S/));
  const margin = Math.min(...margins);
  return [first, ...others.map((line) => line.slice(margin))];
}

/** An item's only paragraph becomes bare text. */
function tight(fragment) {
  const first = fragment.firstElementChild;
  if (first && first.tagName === "P") first.replaceWith(...first.childNodes);
  return fragment;
}

function table(lines, at) {
  const head = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "",
  );
  const row = (texts, tag) =>
    element("tr", ...head.map((_, n) => {
      const cell = element(tag, inline(texts[n] ?? "", 0));
      if (sides[n]) cell.className = sides[n];
      if (tag === "th") cell.scope = "col";
      return cell;
    }));
  const body = document.createElement("tbody");
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) {
    body.append(row(cells(lines[end]), "td"));
  }
  const wrapper = element("div", element("table", element("thead", row(head, "th")), body));
  wrapper.className = "table";
  wrapper.tabIndex = 0;
  return [wrapper, end];
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !interrupts(lines[end])) end += 1;
  return [element("p", inline(lines.slice(at, end).join("\n"), 0)), end];
}

function interrupts(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((begin) => begin.test(line));
}

/** Text with emphasis, code and addresses. */
function inline(text, depth) {
  const fragment = document.createDocumentFragment();
  let rest = text;
  while (rest) {
    const found = depth < DEEPEST && rest.length <= LONGEST ? INLINE.exec(rest) : null;
    if (!found) break;
    fragment.append(rest.slice(0, found.index), span(found, depth + 1));
    rest = rest.slice(found.index + found[0].length);
  }
  fragment.append(rest);
  return fragment;
}

function span(found, depth) {
  const [, , verbatim, strong, strongToo, emphasis, struck, label, address] = found;
  if (verbatim !== undefined) return element("code", verbatim.replace(/^ (.*\S.*) $/, "$1"));
  if (strong ?? strongToo) return element("strong", inline(strong ?? strongToo, depth));
  if (emphasis !== undefined) return element("em", inline(emphasis, depth));
  if (struck !== undefined) return element("s", inline(struck, depth));
  const shown = element("span", inline(label, depth), address ? ` (${address})` : "");
  shown.className = "address";
  return shown;
}

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}
