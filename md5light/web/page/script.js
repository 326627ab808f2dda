// What the page does beyond a page without a script: it stays where it is, and keeps the list of
// this browser's jobs.
//
// A job is shown in a slot, an element with `data-job`: an item of the list, or the job's own page.
// A slot is brought up to date from the job's page as the server writes it, so there are no words
// here, and no markup is made here.

"use strict";

const STORAGE_KEY = "md5light.jobs";
const JOB_ID = /^[0-9a-f-]{36}$/;
const MOST_JOBS = 50;
const TIMEOUT_MS = 10_000;
const COPIED_MS = 2_000;

// Looks come a fifth later each time, and never while the tab is hidden.
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 10_000;
const SLOWDOWN = 1.2;

const root = document.documentElement.dataset.root;
const form = document.querySelector("#submit");
const list = document.querySelector("#jobs ul");
const news = document.querySelector("#news");

let pause = FIRST_PAUSE_MS;
let wake = () => {};

document.documentElement.classList.add("scripted");
document.addEventListener("click", (event) => event.target.matches(".copy") && copy(event.target));
document.addEventListener("visibilitychange", () => document.hidden || lookNow());
if (form) {
  form.addEventListener("submit", submit);
  document.querySelector("#clear").addEventListener("click", clearList);
  addEventListener("storage", (event) => event.key === STORAGE_KEY && listJobs(storedJobs()));
  listJobs(storedJobs());
}
watch();

// --- the list -----------------------------------------------------------------------------------

function storedJobs() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY)).filter((id) => JOB_ID.test(id));
  } catch {
    return []; // the storage is empty, closed to us, or holds something else
  }
}

function storeJobs(ids) {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(ids.slice(0, MOST_JOBS)));
  } catch {
    // without a storage the list lasts as long as the page
  }
}

function listJobs(ids) {
  const slots = new Map([...list.children].map((slot) => [slot.dataset.job, slot]));
  list.replaceChildren(...ids.map((id) => slots.get(id) ?? makeSlot(id)));
  showList();
}

function showList() {
  document.querySelector("#jobs").hidden = !list.children.length;
}

function makeSlot(id) {
  const slot = document.createElement("li");
  slot.dataset.job = id;
  return slot;
}

function forget(slot) {
  storeJobs(storedJobs().filter((id) => id !== slot.dataset.job));
  slot.remove();
  showList();
}

function clearList() {
  storeJobs([]);
  listJobs([]);
  form.elements.url.focus();
}

// --- submitting ---------------------------------------------------------------------------------

// The button is only said to be disabled: if it were, it would lose the focus, and whoever uses a
// keyboard their place.
async function submit(event) {
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    const body = new URLSearchParams(new FormData(form));
    const { page } = await load(form.action, { method: "POST", body });
    const accepted = page.querySelector("[data-job]");
    accepted ? add(accepted) : refuse(page);
  } catch {
    complain(document.body.dataset.unreachable);
  }
  button.ariaDisabled = "false";
}

function add(accepted) {
  const slot = makeSlot(accepted.dataset.job);
  list.prepend(slot);
  update(slot, accepted);
  tell(slot);
  showList();
  storeJobs([slot.dataset.job, ...storedJobs()]);
  complain("");
  form.elements.url.value = "";
  form.elements.url.focus();
  lookNow();
}

function refuse(page) {
  const wrong = page.querySelector("input[aria-invalid=true]")?.id;
  complain(page.querySelector("#problem").textContent, wrong);
  if (wrong) form.elements[wrong].focus();
}

function complain(problem, wrong = "") {
  form.querySelector("#problem").textContent = problem;
  for (const field of form.querySelectorAll("input")) {
    field.setAttribute("aria-invalid", field.id === wrong);
  }
}

// --- watching -----------------------------------------------------------------------------------

async function watch() {
  for (;;) {
    for (const slot of document.querySelectorAll("[data-job]")) {
      if (isUnfinished(slot) && !document.hidden) await look(slot);
    }
    await rest();
    pause = Math.min(pause * SLOWDOWN, LONGEST_PAUSE_MS);
  }
}

function rest() {
  return new Promise((done) => {
    wake = done;
    setTimeout(() => document.hidden || done(), pause);
  });
}

function lookNow() {
  pause = FIRST_PAUSE_MS;
  wake();
}

// Only a job's own page tells of its mail.
function isUnfinished(slot) {
  const card = slot.querySelector(".card");
  if (!card || ["queued", "running"].includes(card.dataset.status)) return true;
  return slot.querySelector("[data-mail=waiting]") !== null;
}

async function look(slot) {
  try {
    const { status, page } = await load(`${root}/jobs/${encodeURIComponent(slot.dataset.job)}`);
    const fresh = page.querySelector("[data-job]");
    if (fresh) update(slot, fresh);
    else if (status === 404 && list) forget(slot);
    if (!list && fresh) document.title = page.title;
  } catch {
    // out of reach; the next look may succeed
  }
}

async function load(url, options = {}) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(url, { headers: { Accept: "text/html" }, signal, ...options });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return { status: answer.status, page };
}

// Only what differs is replaced, so that focus and selection stay where they are.
function update(slot, fresh) {
  const card = slot.querySelector(".card");
  const freshCard = fresh.querySelector(".card");
  if (!card) {
    slot.append(freshCard);
    return;
  }
  if (card.dataset.status !== freshCard.dataset.status) tell(freshCard);
  card.dataset.status = freshCard.dataset.status;
  for (const part of slot.querySelectorAll("[data-part]")) {
    const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!part.isEqualNode(next) && !advance(part, next)) part.replaceWith(next);
  }
}

// A bar that moves on is kept, so that it glides.
function advance(part, next) {
  const bar = part.querySelector("progress[value]");
  const nextBar = next.querySelector("progress[value]");
  if (!bar || !nextBar || bar.max !== nextBar.max) return false;
  bar.value = nextBar.value;
  return true;
}

// --- telling ------------------------------------------------------------------------------------

function tell(card) {
  const parts = [".name", ".status", ".verdict", ".reason"];
  const texts = parts.map((part) => card.querySelector(part)?.textContent.trim());
  news.textContent = texts.filter(Boolean).join(", ");
}

async function copy(button) {
  const code = button.parentElement.querySelector(".md5");
  getSelection().selectAllChildren(code);
  const done = (await copyText(code.textContent)) ? button.dataset.copied : button.dataset.selected;
  news.textContent = done;
  button.dataset.label ??= button.textContent;
  button.textContent = done;
  setTimeout(() => (button.textContent = button.dataset.label), COPIED_MS);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard is closed to pages that came unencrypted; the older way is not.
    return document.execCommand("copy");
  }
}
