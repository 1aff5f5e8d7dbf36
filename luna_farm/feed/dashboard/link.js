// The connection to the feed: opens it, keeps it, and goes on after a break where it stopped (docs/feed.md).
// Knows nothing of what is shown.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;
const SILENCE_MS = 5_000; // the status comes every second: five without a word is a dead connection
const ANSWER_MS = 35_000;

const base64url = (text) =>
  btoa(String.fromCharCode(...new TextEncoder().encode(text)))
    .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

export class Link {
  // heard: {status, event, gap, state}. state is called with "connecting" | "open" | "lost" | "locked" and the wait in ms.
  constructor(heard, { thumbnails = true } = {}) {
    this.heard = heard;
    this.thumbnails = Number(thumbnails);
    this.token = "";
    this.epoch = "";
    this.seq = 0;
    this.wait = FIRST_WAIT_MS;
    this.answers = new Map();
    this.tag = 0;
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  open() {
    clearTimeout(this.timer);
    this.socket?.close();
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const query = new URLSearchParams({ after: this.seq, epoch: this.epoch, thumbnails: this.thumbnails });
    const names = this.token ? ["luna-farm.v1", `luna-farm.token.${base64url(this.token)}`] : [];
    const socket = new WebSocket(`${scheme}://${location.host}/?${query}`, names);
    this.socket = socket;
    this.heard.state("connecting", 0);
    socket.onmessage = (message) => this.socket === socket && this.receive(JSON.parse(message.data));
    socket.onclose = () => this.socket === socket && this.lost();
    this.watch();
  }

  // Try at once if the connection is waiting for its next attempt.
  now() {
    if (this.waiting) this.open();
  }

  ask(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  watch() {
    this.waiting = false;
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.lost(), SILENCE_MS);
  }

  async lost() {
    clearTimeout(this.silence);
    this.close();
    for (const { reject } of this.answers.values()) reject(new Error("The connection to the farm was lost."));
    this.answers.clear();
    const wait = this.wait * (0.8 + 0.4 * Math.random());
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
    this.waiting = true;
    this.timer = setTimeout(() => this.open(), wait);
    this.heard.state("lost", wait);
    // A WebSocket does not say why it was refused; the same door over HTTP does.
    const locked = await fetch("/api/status").then((answer) => answer.status === 401, () => false);
    if (locked && this.waiting) this.heard.state("locked", wait);
  }

  receive(message) {
    this.watch();
    if (message.event) {
      if (message.seq <= this.seq) return;
      this.seq = message.seq;
      this.heard.event(message);
    } else if (message.type === "status") {
      if (message.epoch !== this.epoch) {
        // Another start of the farm: its numbers begin again, and all it still holds is news.
        this.seq = 0;
        this.epoch = message.epoch;
      }
      this.wait = FIRST_WAIT_MS;
      this.heard.state("open", 0);
      this.heard.status(message.data, Date.parse(message.timestamp), message.seq);
    } else if (message.type === "resumed") {
      if (!message.complete && message.after > 0) this.heard.gap();
    } else if (message.type === "answer") {
      this.answers.get(message.id)?.resolve(message);
      this.answers.delete(message.id);
    }
  }

  // Resolves with the farm's answer: {ok, result} or {ok: false, code, error}. Rejects if none comes.
  act(name, { job_id = "", index, row } = {}, token = "") {
    const id = String(++this.tag);
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) throw new Error("The farm is not connected.");
      this.answers.set(id, { resolve, reject });
      setTimeout(() => this.answers.delete(id) && reject(new Error("The farm did not answer.")), ANSWER_MS);
      this.socket.send(JSON.stringify({ type: "action", name, job_id, index, row, token, id }));
    });
  }
}
