"use strict";

// ---------------------------------------------------------------- tables

const original = new Map([...document.querySelectorAll("table[id]")].map((table) => [table, [...table.tBodies[0].rows]]));

function sortBy(table, button) {
  const head = button.closest("th");
  const heads = [...table.querySelectorAll("thead th[aria-sort]")];
  const column = heads.indexOf(head);
  // Numbers start with the largest, names with the first; the third time the rows stand by rate again.
  const [first, second] = column === 0 ? ["ascending", "descending"] : ["descending", "ascending"];
  const order = { none: first, [first]: second, [second]: "none" }[head.getAttribute("aria-sort")];
  heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
  table.classList.toggle("sorted", order !== "none");
  const rows = [...original.get(table)];
  if (order !== "none") {
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => (column === 0 ? row.cells[0].textContent : row.cells[column]?.dataset.sort);
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // unknown: last, either way
      return sign * (column === 0 ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
    });
  }
  table.tBodies[0].append(...rows);
}

function filterRows(input) {
  const all = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
  const rows = all.filter((row) => !row.classList.contains("group"));
  const wanted = input.value.trim().toLowerCase();
  rows.forEach((row) => { row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted); });
  all.filter((row) => row.classList.contains("group")).forEach((row) => { row.hidden = Boolean(wanted); });
  const shown = rows.filter((row) => !row.hidden).length;
  const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  count.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
}

document.querySelectorAll("table thead button").forEach((button) => {
  button.addEventListener("click", () => sortBy(button.closest("table"), button));
});
document.querySelectorAll("[data-filter]").forEach((input) => input.addEventListener("input", () => filterRows(input)));
function toggles(attribute, name) {
  document.querySelectorAll(`[data-${attribute}]`).forEach((box) => {
    const table = document.getElementById(box.dataset[attribute]);
    const show = () => table.classList.toggle(name, box.checked);
    box.addEventListener("change", show);
    show(); // a browser may keep the box ticked over a reload
  });
}
toggles("details", "detailed");
toggles("published", "with-published");

function showMetric(choice) {
  const table = document.getElementById(choice.dataset.metric);
  document.querySelectorAll(`[data-metric="${choice.dataset.metric}"]`).forEach((other) => {
    table.classList.toggle(`by-${other.value}`, other.checked);
  });
}
document.querySelectorAll("[data-metric]").forEach((choice) => {
  choice.addEventListener("change", () => showMetric(choice));
  showMetric(choice);
});

// ---------------------------------------------------------------- samples

function element(tag, text, parent, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  if (parent) parent.append(made);
  return made;
}

// The text with every reference marked in it where it stands as whole words.
function withReferences(parent, text, references) {
  const wanted = references.map((one) => one.trim()).filter(Boolean).sort((a, b) => b.length - a.length)
    .map((one) => one.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!wanted.length) { parent.append(text); return; }
  const spans = new RegExp(`(?<![\\p{L}\\p{N}])(${wanted.join("|")})(?![\\p{L}\\p{N}])`, "giu");
  text.split(spans).forEach((part, n) => {
    if (n % 2) element("mark", part, parent); else parent.append(part);
  });
}

function startBrowser(data) {
  const [task, search, which, list, article, matching, previous, next] =
    ["task", "search", "which", "rows", "sample", "matching", "previous", "next"].map((id) => document.getElementById(id));
  let found = [];
  let current = 0;

  const differ = (values) => new Set(values).size > 1;
  const tests = {
    all: () => true,
    answers: (row) => differ(row.answers.map((answer) => answer.text.trim().toLowerCase())),
    scores: (row) => differ(row.answers.map((answer) => JSON.stringify(answer.scores))),
  };
  const haystack = (row) =>
    [data.contexts[row.context], row.question, ...row.references, ...row.answers.map((answer) => answer.text)]
      .join("\n").toLowerCase();

  function showAnswer(body, answer) {
    const line = element("tr", undefined, body);
    element("th", data.runs[answer.run], line).scope = "row";
    element("td", answer.text || "(nothing)", line, "text-block");
    const scores = element("td", undefined, line);
    Object.entries(answer.scores).forEach(([name, value]) => {
      element("div", `${name} ${value}`, scores, value === 1 ? "right" : value === 0 ? "wrong" : "");
    });
    element("td", answer.memory, line);
  }

  function show(index) {
    current = index;
    [...list.querySelectorAll("button")].forEach((button, n) => button.setAttribute("aria-current", String(n === index)));
    previous.disabled = index <= 0;
    next.disabled = index >= found.length - 1;
    article.replaceChildren();
    const row = found[index];
    if (!row) { element("p", "No row fits.", article); return; }
    element("h3", `${task.value}, row ${row.row}`, article);
    const context = data.contexts[row.context];
    if (context) {
      element("h4", "Context (what may be compressed; the answer is marked)", article);
      const block = element("div", undefined, article, "context text-block");
      block.tabIndex = 0;
      withReferences(block, context, row.references);
      block.scrollTop = (block.querySelector("mark")?.offsetTop ?? 0) - block.offsetTop - 60;
    }
    element("h4", context ? "Question (stays text)" : "Prompt (nothing is compressed)", article);
    element("p", row.question, article, "text-block");
    element("h4", "Reference", article);
    element("p", row.references.join(" | "), article, "text-block");
    const box = element("div", undefined, article, "scroll");
    box.tabIndex = 0;
    const table = element("table", undefined, box);
    table.id = "answers";
    const head = element("tr", undefined, element("thead", undefined, table));
    ["method", "answer", "scores", "memory"].forEach((name) => { element("th", name, head, "text").scope = "col"; });
    const body = element("tbody", undefined, table);
    row.answers.forEach((answer) => showAnswer(body, answer));
  }

  function choose() {
    const rows = data.tasks.find((one) => one.name === task.value).rows;
    const wanted = search.value.trim().toLowerCase();
    found = rows.filter((row) => tests[which.value](row) && (!wanted || haystack(row).includes(wanted)));
    list.replaceChildren(...found.map((row, n) => {
      const item = element("li");
      const button = element("button", `${row.row}: ${row.question.trim().slice(0, 90)}`, item);
      button.type = "button";
      button.addEventListener("click", () => show(n));
      return item;
    }));
    matching.textContent = `${found.length} of ${rows.length} rows on this page`;
    show(0);
  }

  function step(by) {
    show(current + by);
    list.querySelectorAll("button")[current].scrollIntoView({ block: "nearest" });
  }

  [task, which].forEach((input) => input.addEventListener("change", choose));
  search.addEventListener("input", choose);
  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = list.querySelectorAll("button");
    const at = [...buttons].indexOf(document.activeElement) + (by || 0);
    if (!by || !buttons[at]) return;
    event.preventDefault();
    buttons[at].focus();
    show(at);
  });
  choose();
}

const embedded = document.getElementById("data");
if (embedded) startBrowser(JSON.parse(embedded.textContent));
