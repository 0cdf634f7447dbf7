"use strict";
// Text from jobs is set as text, never as HTML.

const MILLISECONDS = 1000;

function element(kind, words = "", style = "") {
  const made = document.createElement(kind);
  made.textContent = words;
  if (style) made.className = style;
  return made;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
}

// Keep existing elements, so that a clip that is playing continues.
function fill(id, items, key, make, update, none) {
  const box = document.getElementById(id);
  const known = new Map([...box.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const child = known.get(key(item)) || make(item);
    child.dataset.key = key(item);
    if (update) update(child, item);
    return child;
  });
  if (!wanted.length) wanted.push(known.get("none") || Object.assign(element("p", none, "none")));
  if (!items.length) wanted[0].dataset.key = "none";
  const same = wanted.length === box.children.length && wanted.every((child, i) => box.children[i] === child);
  if (!same) box.replaceChildren(...wanted);
}

function workerLine() {
  const line = element("div", "", "worker");
  for (let i = 0; i < 5; i++) line.append(element("span"));
  return line;
}

function updateWorker(line, worker) {
  const [name, device, state, work, left] = line.children;
  name.textContent = worker.name;
  device.textContent = worker.device;
  state.textContent = worker.state;
  const at = worker.progress || {};
  work.textContent = [worker.model, at.stage, at.steps ? `${at.step} of ${at.steps}` : ""].filter(Boolean).join(", ");
  left.textContent = at.seconds_left == null ? "" : `${duration(at.seconds_left)} left`;
}

function runningCard(job) {
  const card = element("div", "", "card");
  const words = element("div", "", "words");
  words.append(element("strong", job.name || job.id), element("p"), document.createElement("progress"));
  card.append(words);
  return card;
}

function updateRunning(card, job) {
  if (job.picture) {
    let picture = card.querySelector("img");
    if (!picture) {
      picture = document.createElement("img");
      picture.alt = "preview";
      card.prepend(picture);
    }
    if (picture.dataset.version !== job.picture) {
      picture.dataset.version = job.picture;
      picture.src = `preview/${job.id}?${job.picture}`;
    }
  }
  const at = (job.worker && job.worker.progress) || {};
  card.querySelector("p").textContent = `${job.owner}: ${at.stage || "starting"}`;
  const bar = card.querySelector("progress");
  if (at.steps) {
    bar.max = at.steps;
    bar.value = at.step;
  } else {
    bar.removeAttribute("value");
  }
}

function finishedCard(job) {
  const card = element("div", "", "card");
  const clip = job.results.find((result) => result.role === "clip");
  if (clip) {
    const video = document.createElement("video");
    Object.assign(video, { src: `clip/${clip.sha256}`, controls: true, loop: true, muted: true, preload: "metadata" });
    card.append(video);
  }
  const words = element("div", "", "words");
  words.append(element("strong", job.name || job.id), element("p", `${job.owner}: ${job.kind}, ${job.state}`));
  if (job.error) words.append(element("p", job.error, "error"));
  card.append(words);
  return card;
}

function show(view) {
  const status = view.status;
  document.getElementById("server").textContent =
    `${status.server}, up for ${duration(status.uptime)}, ${status.sessions} connected, ` +
    `${(status.disk_free / 1e9).toFixed(1)} GB free`;
  const states = ["queued", "running", "done", "failed", "canceled"];
  document.getElementById("counts").replaceChildren(
    ...states.map((state) => element("li", `${status[state]} ${state}`)));
  document.getElementById("problems").replaceChildren(...view.problems.map((words) => element("p", words, "error")));
  fill("workers", status.workers, (worker) => worker.name, workerLine, updateWorker, "none");
  const workers = new Map(status.workers.map((worker) => [worker.job, worker]));
  const running = view.jobs.filter((job) => job.state === "running");
  running.forEach((job) => { job.worker = workers.get(job.id); job.picture = view.previews[job.id]; });
  fill("running", running, (job) => job.id, runningCard, updateRunning, "No job is running.");
  const waiting = view.jobs.filter((job) => job.state === "queued");
  fill("waiting", waiting, (job) => job.id,
    (job) => element("li", `${job.name || job.id} (${job.owner}, ${job.kind})`), null, "No job is waiting.");
  const finished = view.jobs.filter((job) => ["done", "failed", "canceled"].includes(job.state));
  fill("finished", finished, (job) => job.id, finishedCard, null, "No finished jobs yet.");
}

async function look() {
  try {
    const reply = await fetch("state.json", { cache: "no-store" });
    if (!reply.ok) throw new Error(reply.status);
    show(await reply.json());
    document.body.classList.remove("lost");
  } catch (error) {
    document.body.classList.add("lost");
  }
  setTimeout(look, MILLISECONDS);
}

look();
