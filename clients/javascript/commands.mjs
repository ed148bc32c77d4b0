// Queued commands: received, given to the application, finished, settled.
//
// A command is in the storage before the gateway hears `received`, and recorded as given before the
// application gets it. So the application gets no id twice, whenever the page or process ends. One that
// was given and not finished before the start has the result `unknown`.

const REMEMBERED_MAX = 1_000; // ids after their results are settled, and results that nobody settles

const failed = (error) => ({ ok: false, data: { error } });

export class Commands {
  // kept: what the storage had. save(): stores everything; throws if it cannot.
  constructor(kept, save) {
    this.save = save;
    this.entries = new Map(kept.map((entry) => [entry.id, entry]));
    this.deadlines = new Map(); // by performance.now(), because a wall clock may be set meanwhile
    for (const entry of this.entries.values()) {
      if (entry.step === "given") this.conclude(entry, failed("unknown"));
      if (entry.expires) this.limit(entry, entry.expires - Date.now());
    }
  }

  kept() {
    return [...this.entries.values()];
  }

  limit(entry, ttl) {
    this.deadlines.set(entry.id, performance.now() + ttl);
  }

  // A command has come. Returns the frames to say.
  arrive({ id, type, data = null, trace, ttl_ms: ttl }) {
    if (!this.entries.has(id)) {
      const entry = { id, type, data, trace, step: "received" };
      if (ttl !== undefined) {
        entry.expires = Date.now() + ttl;
        this.limit(entry, ttl);
      }
      this.entries.set(id, entry);
      try {
        this.save();
      } catch (error) {
        this.entries.delete(id); // without a receipt the gateway keeps it
        throw error;
      }
    }
    const { result } = this.entries.get(id);
    return [{ received: id }, ...(result ? [{ result }] : [])];
  }

  // The next command, recorded as given; with a `result` if its time has passed. null: there is none.
  take() {
    const entry = this.kept().find(({ step }) => step === "received");
    if (!entry) return null;
    if (this.deadlines.get(entry.id) <= performance.now()) return this.finish(entry, failed("expired"));
    entry.step = "given";
    try {
      this.save();
    } catch (error) {
      entry.step = "received";
      throw error;
    }
    return entry;
  }

  finish(entry, outcome) {
    this.conclude(entry, outcome);
    this.forgetSome();
    this.save();
    return entry;
  }

  conclude(entry, outcome) {
    entry.step = "finished";
    entry.result = { id: entry.id, ...outcome };
    delete entry.data;
    this.deadlines.delete(entry.id);
  }

  // The results that are not settled, as frames.
  results() {
    return this.kept()
      .filter(({ step }) => step === "finished")
      .map(({ result }) => ({ result }));
  }

  settled(id) {
    const entry = this.entries.get(id);
    if (entry?.step !== "finished") return;
    entry.step = "settled";
    this.save();
  }

  forgetSome() {
    const ended = this.kept().filter(({ result }) => result);
    for (const { id } of ended.slice(0, -REMEMBERED_MAX)) this.entries.delete(id);
  }
}
