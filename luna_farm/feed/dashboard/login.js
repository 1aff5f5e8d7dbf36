// Who looks: a session that a link or the farm's token opened. It stays in this tab; the token is not kept anywhere.
import { $, make, put, say } from "/dom.js";

const KEPT = "luna-farm-session";

// Resolves with {session} or {error: sentence}. `scheme`: "Login" for the secret of a link, "Bearer" for a token.
async function exchange(scheme, secret) {
  try {
    const answer = await fetch("/api/login", { headers: { Authorization: `${scheme} ${secret}` }, cache: "no-store" });
    return answer.ok ? await answer.json() : { error: (await answer.text()).trim() };
  } catch {
    return { error: "The farm does not answer. Is it running? luna-farm start" };
  }
}

function dialog() {
  const node = make("dialog", "");
  node.id = "token-dialog";
  node.setAttribute("aria-labelledby", "token-title");
  const title = make("h2", "", "The farm's token");
  title.id = "token-title";
  const path = make("code", "", "token");
  path.id = "token-path";
  const hint = make("p", "", "Actions need it, and so does reading from another machine. ", make("code", "", "luna-farm dashboard"), " logs you in without it. It is the content of the file ", path, " in the farm's state folder, and new after every start of the farm.");
  const label = make("label", "", "Token");
  label.htmlFor = "token-input";
  const input = make("input", "");
  Object.assign(input, { id: "token-input", type: "password", autocomplete: "off", spellcheck: false, required: true });
  const error = make("p", "error");
  error.id = "token-error";
  error.setAttribute("role", "alert");
  const use = make("button", "strong", "Use it");
  const cancel = make("button", "", "Cancel");
  cancel.id = "token-cancel";
  cancel.type = "button";
  const form = make("form", "", title, hint, label, input, error, make("div", "row", use, cancel));
  form.id = "token-form";
  node.append(form);
  document.body.append(node);
  return node;
}

export class Login {
  // changed: called when a session begins or ends.
  constructor(changed) {
    this.changed = changed;
    this.session = "";
    this.stateDir = "";
    this.then = null;
    this.dialog = dialog();
    $("token-form").addEventListener("submit", (event) => { event.preventDefault(); this.enter($("token-input").value.trim()); });
    $("token-cancel").addEventListener("click", () => this.dialog.close());
    $("unlock").addEventListener("click", () => (this.session ? (this.use(""), say("Logged out of this tab.")) : this.ask()));
  }

  // A link or a token may come in the fragment, which no server ever sees; it leaves the address at once.
  async start() {
    const given = new URLSearchParams(location.hash.slice(1));
    const [link, token] = [given.get("login"), given.get("token")];
    if (link || token) history.replaceState(null, "", location.pathname + location.search);
    this.use(sessionStorage.getItem(KEPT) ?? "");
    if (!link && !token) return;
    const { session, error } = await exchange(link ? "Login" : "Bearer", link ?? token);
    if (session) this.use(session);
    else this.ask(null, error);
  }

  use(session) {
    this.session = session;
    if (session) sessionStorage.setItem(KEPT, session);
    else sessionStorage.removeItem(KEPT);
    put($("unlock"), session ? "Log out" : "Log in");
    this.changed();
  }

  // Ask for the token; `then` runs once it is there.
  ask(then = null, error = "") {
    this.then = then;
    put($("token-error"), error);
    put($("token-path"), this.stateDir ? `${this.stateDir}/token` : "token");
    if (!this.dialog.open) this.dialog.showModal();
    $("token-input").value = "";
    $("token-input").focus();
  }

  async enter(token) {
    const { session, error } = await exchange("Bearer", token);
    if (error) return this.ask(this.then, error);
    const then = this.then;
    this.then = null;
    this.dialog.close();
    this.use(session);
    then?.();
  }
}

// Run an action of the farm, asking for the token first where it is missing. `done` gets the farm's answer, or the
// reason why there is none as {ok: false, error}.
export async function act(login, link, name, target, done) {
  const again = () => act(login, link, name, target, done);
  if (!login.session) return login.ask(again);
  let answer;
  try {
    answer = await link.act(name, target, login.session);
  } catch (error) {
    answer = { ok: false, error: error.message };
  }
  if (answer.code === "unauthorized") {
    login.use("");
    return login.ask(again, answer.error);
  }
  done(answer);
}
