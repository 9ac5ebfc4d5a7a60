// Asking again and again: one question at a time, none while nobody looks, fewer while nobody answers.

const LONGEST_SECONDS = 60;

export class Poll {
  #seconds;
  #work;
  #failed;
  #failures = 0;
  #stop = new AbortController();
  #timer = 0;

  /**
   * @param {number} seconds from an answer to the next question
   * @param {(signal: AbortSignal) => Promise<void>} work asks and shows
   * @param {(error: Error, seconds: number) => void} failed told the seconds until the next try
   */
  constructor(seconds, work, failed) {
    this.#seconds = seconds;
    this.#work = work;
    this.#failed = failed;
    document.addEventListener("visibilitychange", () => this.#looked());
  }

  /** Ask now, and from then on. Gives up what was being asked. */
  start() {
    this.stop();
    this.running = true;
    if (!document.hidden) this.#ask(this.#stop.signal);
  }

  stop() {
    this.running = false;
    this.#pause();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#stop.abort();
    this.#stop = new AbortController();
  }

  #looked() {
    if (!this.running) return;
    this.#pause();
    if (!document.hidden) this.#ask(this.#stop.signal);
  }

  async #ask(signal) {
    let seconds = this.#seconds;
    try {
      await this.#work(signal);
      this.#failures = 0;
    } catch (error) {
      if (signal.aborted) return;
      seconds = Math.min(seconds * 2 ** this.#failures, LONGEST_SECONDS);
      this.#failures += 1;
      this.#failed(error, seconds);
    }
    if (!signal.aborted) this.#timer = setTimeout(() => this.#ask(signal), seconds * 1000);
  }
}
