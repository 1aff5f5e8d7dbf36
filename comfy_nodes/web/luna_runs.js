// Which images a saver shows when its jobs end late, in any order, and their messages overtake each other.
// A run is what one prompt made of one node: one job, or several where the node got a list. No page and no ComfyUI
// here: messages in, the shown images out. Counterpart: comfy_nodes/previews.py.

const KEPT = 50; // runs a node remembers; more than that are not open at once

export class Runs {
  #runs = []; // oldest first

  // The node's own message of an execution: all its jobs, in order. From the cache it comes again.
  begin({ node, prompt_id: prompt }, jobs) {
    const run = jobs.map((job) => this.#having(job)).find(Boolean) ?? this.#of(node, prompt) ?? this.#add(node, prompt);
    const before = run.jobs;
    run.jobs = new Map(jobs.map((job) => [keyOf(job), job]));
    // An end that overtook this message stays an end.
    for (const [key, job] of before) if (ended(job) || !run.jobs.has(key)) run.jobs.set(key, job);
    this.#sort();
  }

  // A job ended. False for one that is older than what is shown already.
  end(where, job) {
    const run = this.#found(where, job);
    run?.jobs.set(keyOf(job), job);
    this.#sort();
    return Boolean(run);
  }

  // A job is still open. False where that is old news.
  wait(where, job) {
    const run = this.#found(where, job);
    const known = run?.jobs.get(keyOf(job));
    if (!run || (known && ended(known))) return false;
    run.jobs.set(keyOf(job), { ...known, ...job });
    this.#sort();
    return true;
  }

  // The run of a job, a new one where its first message is still to come, or came before the page was reloaded.
  #found({ node, prompt_id: prompt }, job) {
    const known = this.#having(job) ?? this.#of(node, prompt);
    const isOld = this.#runs.length && job.number < numberOf(this.#runs[0]);
    return known ?? (isOld ? null : this.#add(node, prompt));
  }

  // The jobs of the newest run.
  get newest() {
    return [...(this.#runs.at(-1)?.jobs.values() ?? [])];
  }

  // The images of the newest run that has some; none where a newer one ended without any. What is older is forgotten.
  images() {
    for (let at = this.#runs.length - 1; at >= 0; at--) {
      const jobs = [...this.#runs[at].jobs.values()];
      const images = jobs.flatMap((job) => (job.preview === false ? [] : job.pictures ?? []));
      if (images.length || jobs.every(ended)) {
        this.#runs.splice(0, at);
        return images;
      }
    }
    return [];
  }

  forgetEnded() {
    this.#runs = this.#runs.filter((run) => ![...run.jobs.values()].every(ended));
  }

  #having(job) {
    return this.#runs.find((run) => run.jobs.has(keyOf(job)));
  }

  #of(node, prompt) {
    return this.#runs.find((run) => prompt && run.node === node && run.prompt === prompt);
  }

  #add(node, prompt) {
    const run = { node, prompt, jobs: new Map() };
    this.#runs.push(run);
    if (this.#runs.length > KEPT) this.#runs.shift();
    return run;
  }

  #sort() {
    this.#runs.sort((a, b) => numberOf(a) - numberOf(b));
  }
}

// A refused job has no id.
function keyOf(job) {
  return job.job_id || job.number;
}

export function ended(job) {
  return job.state !== "queued";
}

function numberOf(run) {
  return Math.max(...[...run.jobs.values()].map((job) => job.number ?? 0));
}
