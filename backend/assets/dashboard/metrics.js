// What an operation measured, as plots that grow while it runs. Names that share a meaning share a plot.

import { api } from './api.js';
import { lines } from './chart.js';
import { h } from './dom.js';
import { timeOfDay } from './format.js';
import { atMostEvery, perFrame } from './live.js';

const PAGE = 5000;
// More points than anybody looks at; further ones are left to the API.
const MOST = 200000;
const TOGETHER = ['loss', 'accuracy', 'equity', 'drawdown'];

export function charts(id, signal, failed) {
  const grid = h('div', { class: 'plots' });
  const element = h('section', { class: 'card', id: 'metrics', hidden: true }, h('header', null, h('h2', null, 'Metrics')), grid);
  // By name and attempt: one that took over may measure the same again, and its line is one of its own.
  const series = new Map();
  const counted = new Map();
  const drawn = new Map();
  let cursor = null;
  let total = 0;
  let asking = false;

  function take(points) {
    for (const { timestamp, name, value, attempt } of points) {
      if (value === null || total >= MOST) continue;
      const key = attempt > 1 ? `${name} (attempt ${attempt})` : name;
      if (!series.has(key)) series.set(key, { name, points: [] });
      const number = (counted.get(name) ?? 0) + 1;
      counted.set(name, number);
      series.get(key).points.push({ x: number, y: value, label: `#${number} · ${timeOfDay(timestamp)}`, tick: String(number) });
      total += 1;
    }
    draw();
  }

  const draw = perFrame(() => {
    if (series.size === 0) return;
    element.hidden = false;
    const groups = new Map();
    for (const [key, { name }] of [...series].slice(0, 60)) {
      const group = TOGETHER.find((word) => name.toLowerCase().includes(word)) ?? name;
      groups.set(group, [...(groups.get(group) ?? []), key]);
    }
    for (const [group, keys] of groups) {
      let chart = drawn.get(group);
      if (!chart) {
        chart = lines(group);
        drawn.set(group, chart);
        grid.append(chart.element);
      }
      chart.set(keys.map((key) => ({ name: key, points: series.get(key).points })));
    }
  });

  const refresh = atMostEvery(1000, async () => {
    asking = true;
    try {
      let more = true;
      while (more && total < MOST) {
        const page = await api.metrics(id, { cursor, limit: PAGE }, signal);
        cursor = page.cursor;
        take(page.metrics);
        more = page.has_more;
      }
    } catch (error) {
      if (!signal.aborted) failed(error);
    } finally {
      asking = false;
    }
  });

  return {
    element,
    refresh: () => refresh(),
    // A batch that follows what is here is taken as it is; anything else is a reason to ask.
    take(message) {
      if (!asking && cursor !== null && message.from === cursor) {
        cursor = message.cursor;
        take(message.metrics);
      } else refresh();
    },
    stop: () => refresh.stop(),
  };
}
