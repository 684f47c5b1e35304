// What an operation measured, as plots that grow while it runs. Names that share a meaning share a plot.

import { api } from './api.js';
import { lines } from './chart.js';
import { h, show } from './dom.js';
import { timeOfDay } from './format.js';
import { atMostEvery, perFrame } from './live.js';

const PAGE = 5000;
// More points than anybody looks at; further ones are left to the API.
const MOST = 200000;
const TOGETHER = ['loss', 'accuracy', 'equity', 'drawdown'];

export function charts(id, signal) {
  const grid = h('div', { class: 'plots' });
  const element = h('section', { class: 'card', id: 'metrics', hidden: true }, h('header', null, h('h2', null, 'Metrics')), grid);
  const series = new Map();
  const drawn = new Map();
  let cursor = null;
  let total = 0;
  let asking = false;

  function take(points) {
    for (const { timestamp, name, value } of points) {
      if (value === null || total >= MOST) continue;
      if (!series.has(name)) series.set(name, []);
      const list = series.get(name);
      list.push({ x: list.length + 1, y: value, label: `#${list.length + 1} · ${timeOfDay(timestamp)}`, tick: String(list.length + 1) });
      total += 1;
    }
    draw();
  }

  const draw = perFrame(() => {
    if (series.size === 0) return;
    element.hidden = false;
    const groups = new Map();
    for (const name of [...series.keys()].slice(0, 60)) {
      const group = TOGETHER.find((word) => name.toLowerCase().includes(word)) ?? name;
      groups.set(group, [...(groups.get(group) ?? []), name]);
    }
    for (const [group, names] of groups) {
      let chart = drawn.get(group);
      if (!chart) {
        chart = lines(group);
        drawn.set(group, chart);
        grid.append(chart.element);
      }
      chart.set(names.map((name) => ({ name, points: series.get(name) })));
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
      if (!signal.aborted && series.size === 0 && !element.hidden) show(grid, h('p', { class: 'muted' }, error.message));
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
