// The workers, kept up to date by events: a list of a thousand is fetched seldom.

/** All workers that are known, by id. */
export class WorkerTable {
  /** @type {Map<string, Api.Worker>} */
  #workers = new Map();
  /**
   * What has come while a list is being read. It may be newer than the list.
   * @type {Api.WorkerEvent[] | null}
   */
  #meanwhile = null;

  get all() {
    return [...this.#workers.values()];
  }

  /**
   * Takes the workers of a list, one list at a time.
   * @param {() => Promise<Api.Worker[]>} readList
   */
  async read(readList) {
    this.#meanwhile = [];
    try {
      const workers = await readList();
      const meanwhile = this.#meanwhile;
      this.#workers = new Map(workers.map((worker) => [worker.worker_id, worker]));
      meanwhile.forEach((event) => this.#apply(event));
    } finally {
      this.#meanwhile = null;
    }
  }

  /** @param {Api.WorkerEvent} event */
  take(event) {
    this.#meanwhile?.push(event);
    this.#apply(event);
  }

  /** @param {Api.WorkerEvent} event */
  #apply(event) {
    const { worker_id: id } = event;
    if ('removed' in event) {
      this.#workers.delete(id);
      return;
    }
    const known = this.#workers.get(id);
    const isOlder = known && known.last_health_check > event.last_health_check;
    if (!isOlder) this.#workers.set(id, event);
  }
}
