// What the page does beyond a page without a script: it stays where it is, and keeps the list of
// this browser's jobs and batches.
//
// A job or a batch is shown in a slot, an element with `data-slot`: an item of the list of jobs, or
// the main part of its own page. A slot is brought up to date from that page as the server writes
// it, so there are no words here, and no markup is made here.

"use strict";

const STORAGE_KEY = "md5light.jobs";
const NOTIFY_KEY = "md5light.notify";
const LISTED = /^(batches\/)?[0-9a-f-]{36}$/; // a batch, or the bare id of a job
const MOST_LISTED = 50;
const NO_LINES = "?after=999999999";
const TIMEOUT_MS = 10_000;
const COPIED_MS = 2_000;

// Each pause between two looks is longer than the one before. There are none while the tab is
// hidden, unless the reader wants to be notified.
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 10_000;
const SLOWDOWN = 1.3;

const root = document.documentElement.dataset.root;
const form = document.querySelector("#submit");
const list = document.querySelector("#jobs ul");
const news = document.querySelector("#news");
const title = document.title;

let pause = FIRST_PAUSE_MS;
let wake = () => {};

document.documentElement.classList.add("scripted");
document.addEventListener("click", click);
document.addEventListener("submit", act);
document.addEventListener("visibilitychange", () => document.hidden || lookNow());
document.querySelectorAll("#notify").forEach(offerNotice);
localise(document);
if (form) {
  form.addEventListener("submit", submit);
  document.querySelector("#clear").addEventListener("click", clearList);
  document.querySelector("#batch")?.addEventListener("submit", submitList);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", dropFile);
  addEventListener("storage", (event) => event.key === STORAGE_KEY && show(stored()));
  show(stored());
}
watch();

function click(event) {
  if (event.target.matches(".copy")) copy(event.target);
  if (event.target.matches(".remove")) remove(event.target.closest("[data-slot]"));
  if (event.target.matches("[data-line]")) selectLine(event);
}

// --- the list of jobs and batches ---------------------------------------------------------------

function stored() {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY)).filter((item) => LISTED.test(item));
  } catch {
    return []; // the storage is empty, closed to us, or holds something else
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // without a storage it lasts as long as the page
  }
}

function storeList(items) {
  store(STORAGE_KEY, items.slice(0, MOST_LISTED));
}

function show(items) {
  const slots = new Map([...list.children].map((slot) => [slot.dataset.item, slot]));
  list.replaceChildren(...items.map((item) => slots.get(item) ?? makeSlot(item)));
  showList();
}

function showList() {
  document.querySelector("#jobs").hidden = !list.children.length;
  showProgress();
}

function makeSlot(item) {
  const slot = document.createElement("li");
  slot.dataset.slot = "";
  slot.dataset.item = item;
  slot.dataset.live = "yes";
  return slot;
}

// The lines of a batch are shown on its own page alone.
function addressOf(item) {
  return item.startsWith("batches/") ? `${root}/${item}${NO_LINES}` : `${root}/jobs/${item}`;
}

function forget(slot) {
  storeList(stored().filter((item) => item !== slot.dataset.item));
  slot.remove();
  showList();
}

function remove(slot) {
  const neighbour = slot.nextElementSibling ?? slot.previousElementSibling;
  forget(slot);
  (neighbour?.querySelector("a") ?? form.elements.url).focus();
}

function clearList() {
  storeList([]);
  show([]);
  form.elements.url.focus();
}

// --- submitting ---------------------------------------------------------------------------------

// The button is only said to be disabled: if it were, it would lose the focus, and a reader with a
// keyboard the place.
async function whileBusy(button, work) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = "false";
  }
}

function submit(event) {
  event.preventDefault();
  return whileBusy(event.submitter ?? form.querySelector("button"), async () => {
    try {
      const { page } = await load(form.action, { method: "POST", body: new FormData(form) });
      const accepted = page.querySelector("[data-job]");
      accepted ? add(accepted) : refuse(page);
    } catch {
      complain(document.body.dataset.unreachable);
    }
  });
}

function add(accepted) {
  const slot = makeSlot(accepted.dataset.job);
  list.prepend(slot);
  update(slot, accepted);
  tell(slot);
  showList();
  storeList([slot.dataset.item, ...stored()]);
  complain("");
  form.elements.url.value = "";
  form.elements.url.focus();
  lookNow();
}

function refuse(page) {
  const wrong = page.querySelector("#submit [aria-invalid=true]")?.id;
  complain(page.querySelector("#problem").textContent, wrong);
  if (wrong) form.elements[wrong].focus();
}

function complain(problem, wrong = "") {
  form.querySelector("#problem").textContent = problem;
  for (const field of form.querySelectorAll("input")) {
    field.setAttribute("aria-invalid", field.id === wrong);
  }
}

// A list may be large, and the way to the server slow: it has all the time it needs.
function submitList(event) {
  event.preventDefault();
  const lists = event.target;
  const problem = lists.querySelector("#list-problem");
  return whileBusy(event.submitter, async () => {
    try {
      const options = { method: "POST", body: new FormData(lists), signal: null };
      const { page, url } = await load(lists.action, options);
      const batch = page.querySelector("[data-batch]")?.dataset.batch;
      if (batch) {
        storeList([`batches/${batch}`, ...stored()]);
        return location.assign(url);
      }
      const found = page.querySelector("#list-problem") ?? page.querySelector("#problem");
      problem.replaceChildren(...found.childNodes);
    } catch {
      problem.textContent = document.body.dataset.unreachable;
    }
    lists.elements.lines.setAttribute("aria-invalid", "true");
    lists.elements.lines.focus();
  });
}

function dropFile(event) {
  const field = document.querySelector("#file");
  if (!field || !event.dataTransfer?.files.length) return;
  event.preventDefault();
  field.files = event.dataTransfer.files;
  document.querySelector("#list").open = true;
  field.focus();
}

function selectLine(event) {
  event.preventDefault();
  const field = document.querySelector("#lines");
  const before = field.value.split("\n").slice(0, event.target.dataset.line - 1);
  const start = before.reduce((length, line) => length + line.length + 1, 0);
  const end = field.value.indexOf("\n", start);
  field.focus();
  field.setSelectionRange(start, end < 0 ? field.value.length : end);
}

// --- what can be done with a job or a batch -----------------------------------------------------

function act(event) {
  if (event.target.matches(".action")) change(event);
  if (event.target.matches(".compare")) compare(event);
}

// What can't be shown in place, the browser shows as it does without a script.
async function change(event) {
  event.preventDefault();
  const slot = event.target.closest("[data-slot]");
  await whileBusy(event.submitter, async () => {
    try {
      const { page } = await load(event.target.action, { method: "POST" });
      const fresh = page.querySelector("[data-slot]");
      if (!fresh) throw new Error("no page of it");
      update(slot, fresh);
      lookNow();
    } catch {
      event.target.submit();
    }
  });
  (slot.querySelector(".action button") ?? slot.querySelector("a"))?.focus();
}

async function compare(event) {
  event.preventDefault();
  const address = new URL(event.target.action);
  address.search = new URLSearchParams(new FormData(event.target));
  history.replaceState(null, "", address);
  await look(event.target.closest("[data-slot]"));
}

// --- watching -----------------------------------------------------------------------------------

async function watch() {
  for (;;) {
    for (const slot of document.querySelectorAll('[data-slot][data-live="yes"], li:empty')) {
      if (mayLook()) await look(slot);
    }
    await rest();
    pause = Math.min(pause * SLOWDOWN, LONGEST_PAUSE_MS);
  }
}

function mayLook() {
  return !document.hidden || wantsNotice();
}

function rest() {
  return new Promise((done) => {
    wake = done;
    setTimeout(() => mayLook() && done(), pause);
  });
}

function lookNow() {
  pause = FIRST_PAUSE_MS;
  wake();
}

async function look(slot) {
  try {
    const { status, page } = await load(list ? addressOf(slot.dataset.item) : location.href);
    const fresh = page.querySelector("[data-slot]");
    // A form out of the document can't be submitted, as `change` may have to.
    const isBusy = slot.querySelector("[aria-disabled=true]");
    if (fresh && !isBusy) update(slot, fresh);
    if (status === 404 && list) forget(slot);
    if (!list && fresh) document.title = page.title;
  } catch {
    // out of reach; the next look may succeed
  }
}

async function load(address, options = {}) {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(address, { headers: { Accept: "text/html" }, signal, ...options });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  localise(page);
  return { status: answer.status, page, url: answer.url };
}

// Only what differs is replaced, so that focus and selection stay where they are.
function update(slot, fresh) {
  slot.dataset.live = fresh.dataset.live;
  const subject = slot.querySelector("[data-progress]");
  const freshSubject = fresh.querySelector("[data-progress]");
  if (!subject) {
    slot.append(freshSubject);
    showProgress();
    return;
  }
  const hasChanged = subject.dataset.status !== freshSubject.dataset.status;
  Object.assign(subject.dataset, freshSubject.dataset);
  subject.className = freshSubject.className;
  for (const part of slot.querySelectorAll("[data-part]")) {
    const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!part.isEqualNode(next) && !advance(part, next)) part.replaceWith(next);
  }
  if (hasChanged) tell(slot);
  showProgress();
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

function tell(slot) {
  const card = slot.querySelector("[data-progress]");
  const parts = [".name", ".status", ".verdict", ".reason", ".summary"];
  const texts = parts.map((part) => card.querySelector(part)?.textContent.trim());
  news.textContent = texts.filter(Boolean).join(", ");
  const hasEnded = !["queued", "running"].includes(card.dataset.status);
  if (hasEnded && wantsNotice()) notify(news.textContent);
}

// The tab's title has the progress of the first job that has any.
function showProgress() {
  if (!list) return;
  const shown = [...list.querySelectorAll("[data-progress]")].map((card) => card.dataset.progress);
  document.title = [shown.find(Boolean), title].filter(Boolean).join(" · ");
}

function localise(page) {
  for (const time of page.querySelectorAll("time")) {
    time.title = time.textContent;
    const zoned = new Intl.DateTimeFormat(document.documentElement.lang, {
      dateStyle: "medium",
      timeStyle: "medium",
    });
    time.textContent = zoned.format(new Date(time.dateTime));
  }
}

function wantsNotice() {
  try {
    return localStorage.getItem(NOTIFY_KEY) === "true" && Notification.permission === "granted";
  } catch {
    return false; // no storage, or no notifications
  }
}

function offerNotice(box) {
  box.parentElement.hidden = !("Notification" in window) || Notification.permission === "denied";
  box.checked = wantsNotice();
  box.addEventListener("change", async () => {
    const granted = box.checked && (await Notification.requestPermission()) === "granted";
    store(NOTIFY_KEY, granted);
    box.checked = granted;
  });
}

function notify(text) {
  try {
    new Notification("md5light", { body: text });
  } catch {
    // some phones know notifications but not this way to show them
  }
}

async function copy(button) {
  const code = button.previousElementSibling;
  getSelection().selectAllChildren(code);
  const done = (await copyText(code.textContent)) ? button.dataset.copied : button.dataset.selected;
  news.textContent = done;
  button.dataset.label ??= button.textContent;
  button.textContent = done;
  button.classList.add("copied");
  setTimeout(() => {
    button.textContent = button.dataset.label;
    button.classList.remove("copied");
  }, COPIED_MS);
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
