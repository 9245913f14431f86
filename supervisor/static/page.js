// Keeps the page up to date, says when it has lost contact, and asks before it does anything. No library, no build step.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const root = document.documentElement;
  root.classList.add("js");

  // --- Times: the server writes UTC, the browser knows its own zone.
  const forms = {
    clock: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
    day: new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }),
  };
  const clock = (at) => forms.clock.format(at);
  function localize(within) {
    for (const time of within.querySelectorAll("time[datetime]")) {
      time.textContent = forms[time.dataset.form].format(new Date(time.dateTime));
    }
  }

  // --- Updates: the nodes that differ are changed in place, so that focus, selection and opened details stay.
  function morph(old, fresh) {
    if (old.nodeName !== fresh.nodeName || (old.id || fresh.id) && old.id !== fresh.id) return old.replaceWith(fresh);
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
    }
    morphChildren(old, fresh);
  }
  function morphChildren(old, fresh) {
    let here = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const same = wanted.id && [...old.children].find((child) => child.id === wanted.id);
      if (same && same !== here) move(old, same, here);
      here = same || here;
      if (!same && (!here || here.id || wanted.id)) { old.insertBefore(wanted, here); continue; } // nothing of its own to change
      const next = here.nextSibling;
      morph(here, wanted);
      here = next;
    }
    while (here) { const next = here.nextSibling; here.remove(); here = next; }
  }
  const move = (parent, child, before) => (parent.moveBefore ?? parent.insertBefore).call(parent, child, before);
  function fragment(html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    localize(template.content);
    return template.content;
  }
  function update({ parts, order }) {
    for (const [id, html] of Object.entries(parts)) {
      if (!byId(id) && id.startsWith("service-")) byId("services").append(Object.assign(document.createElement("li"), { id }));
      if (byId(id)) morphChildren(byId(id), fragment(html));
    }
    arrange(order);
    if ("dead" in parts) showLettersSoon();
    describe();
  }
  function arrange(order) {
    const list = byId("services");
    for (const child of [...list.children]) if (!order.includes(child.id)) child.remove();
    order.forEach((id, at) => {
      if (list.children[at]?.id !== id) move(list, byId(id), list.children[at] ?? null);
    });
  }
  function describe() {
    const headline = document.querySelector(".headline");
    document.title = `${headline.querySelector("h1").textContent} · Seawall`;
    const icon = `/static/lamp-${headline.dataset.level}.svg`;
    const link = document.querySelector("link[rel=icon]");
    if (link.getAttribute("href") !== icon) link.setAttribute("href", icon);
    root.classList.toggle("away", headline.hasAttribute("data-away"));
  }

  // --- Contact: the server says something every two seconds; a silence means that it is gone.
  const SILENCE = 6000, AGAIN = 2000;
  let heard = Date.now(), source = null;
  function hear(event) {
    heard = Date.now();
    if (event.type === "message") update(JSON.parse(event.data));
    if (root.classList.contains("silent")) showLettersSoon();
    root.classList.remove("silent");
    byId("lost").hidden = true;
    contact(root.classList.contains("away") ? "broker away" : "live");
  }
  function contact(word) {
    const shown = byId("contact").querySelector("span:last-child");
    if (shown.textContent !== word) shown.textContent = word;
  }
  function lose() {
    if (root.classList.contains("silent")) return;
    root.classList.add("silent");
    byId("lost").textContent = `No contact with the web process since ${clock(heard)}. What you see is from then. Trying again…`;
    byId("lost").hidden = false;
    contact("no contact");
  }
  function listen() {
    source = new EventSource("/events");
    source.onmessage = hear;
    source.addEventListener("beat", hear);
    source.onerror = async () => {
      lose();
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      const answer = await fetch("/v1/api/dead/replay").catch(() => null);
      if (answer?.status === 401) location.assign("/login");
      else setTimeout(listen, AGAIN);
    };
  }
  setInterval(() => { if (Date.now() - heard > SILENCE) lose(); }, 1000);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });

  // --- Dead letters: the list is this reader's own, by the filter.
  const filter = byId("filter");
  let asked = 0, soon = 0;
  function showLettersSoon() { // once a second at the most, and not for nobody
    soon ||= setTimeout(() => { soon = 0; if (!document.hidden) showLetters(); }, 1000);
  }
  document.addEventListener("visibilitychange", showLettersSoon);
  async function showLetters() {
    const mine = ++asked;
    const text = await fetch(`/?${new URLSearchParams(new FormData(filter))}`)
      .then((answer) => answer.ok ? answer.text() : "").catch(() => ""); // it may end within an answer, too
    if (!text || mine !== asked) return;
    const page = new DOMParser().parseFromString(text, "text/html");
    const letters = page.getElementById("letters");
    if (!letters) return;
    localize(letters);
    morphChildren(byId("letters"), letters);
  }
  filter.addEventListener("change", () => {
    history.replaceState(null, "", `/?${new URLSearchParams(new FormData(filter))}`);
    showLetters();
  });
  filter.addEventListener("submit", (event) => { event.preventDefault(); showLetters(); });

  // --- Buttons: each asks first.
  const dialog = byId("ask");
  let pending = null;
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-post]");
    if (!button) return;
    pending = { ...button.dataset };
    byId("ask-question").textContent = pending.question;
    byId("ask-text").textContent = pending.text;
    byId("ask-trouble").textContent = "";
    byId("ask-yes").textContent = pending.label;
    byId("ask-yes").classList.toggle("danger", "danger" in pending);
    dialog.showModal();
    byId("ask-no").focus();
  });
  byId("ask-no").addEventListener("click", () => dialog.close());
  byId("ask-yes").addEventListener("click", async () => {
    const { post, body, question } = pending;
    byId("ask-yes").disabled = true;
    const [word, trouble] = await send(post, body);
    byId("ask-yes").disabled = false;
    byId("ask-trouble").textContent = trouble;
    if (trouble) return;
    dialog.close();
    say(`${word}: ${question.replace(/\?$/, "")}`);
    showLetters();
  });
  async function send(url, body) {
    try {
      const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      if (answer.status === 401) location.assign("/login");
      return answer.ok ? [answer.status === 202 ? "Started" : "Done", ""] : ["", (await answer.json()).error];
    } catch {
      return ["", "The web process does not answer. Whether it was done is not known."];
    }
  }
  let hush = 0;
  function say(text) {
    byId("said").textContent = text;
    clearTimeout(hush);
    hush = setTimeout(() => { byId("said").textContent = ""; }, 6000);
  }

  localize(document);
  describe();
  listen();
})();
