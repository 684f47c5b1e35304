// Sorts an operation's metric points into lines and plots.

import { number, timeOfDay } from './format.js';

// More points than anybody looks at. The REST interface has all of them.
const MAX_POINTS = 200000;
const MAX_LINES = 60;
// Names that contain one of these words share a plot.
const SHARED_PLOTS = ['loss', 'accuracy', 'equity', 'drawdown'];

export class MetricSeries {
  /**
   * By name and attempt. An attempt that took over may measure the same again, so it gets a line of
   * its own.
   * @type {Map<string, { metric: string, points: Point[], isSorted: boolean }>}
   */
  #lines = new Map();
  #total = 0;

  get isEmpty() {
    return this.#lines.size === 0;
  }

  /** Whether no further point is kept. */
  get isFull() {
    return this.#total >= MAX_POINTS;
  }

  /**
   * The x of a point is its step, or else its number in its attempt: an attempt that took over does
   * not go on to the right of the last one.
   * @param {Api.MetricPoint[]} points in the order in which they were measured
   */
  add(points) {
    for (const { timestamp, name, value, attempt, step } of points) {
      if (value === null || this.isFull) continue;

      const line = this.#line(name, attempt ?? 1);
      const hasStep = typeof step === 'number';
      const x = hasStep ? step : line.points.length + 1;
      const label = `${hasStep ? 'step ' : '#'}${number(x)} · ${timeOfDay(timestamp)}`;
      this.#total += 1;
      if (x < (line.points.at(-1)?.x ?? -Infinity)) line.isSorted = false;
      line.points.push({ x, y: value, label });
    }
  }

  /**
   * @param {string} metric
   * @param {number} attempt
   */
  #line(metric, attempt) {
    const name = attempt > 1 ? `${metric} (attempt ${attempt})` : metric;
    let line = this.#lines.get(name);
    if (!line) {
      line = { metric, points: [], isSorted: true };
      this.#lines.set(name, line);
    }
    return line;
  }

  /**
   * The lines of each plot, by the plot's name.
   * @returns {Map<string, Series[]>}
   */
  plots() {
    for (const line of this.#lines.values()) {
      if (!line.isSorted) line.points.sort((a, b) => a.x - b.x);
      line.isSorted = true;
    }

    const plots = new Map();
    for (const [name, { metric, points }] of [...this.#lines].slice(0, MAX_LINES)) {
      const plot = SHARED_PLOTS.find((word) => metric.toLowerCase().includes(word)) ?? metric;
      if (!plots.has(plot)) plots.set(plot, []);
      plots.get(plot).push({ name, points });
    }
    return plots;
  }
}
