// The metrics of one operation, as plots that grow while it runs.

import { api } from './api.js';
import { csvButton } from './metrics-csv.js';
import { h } from './dom.js';
import { lineChart } from './line-chart.js';
import { MetricSeries } from './metric-series.js';
import { atMostEvery, perFrame } from './throttle.js';

const PAGE = 5000;

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} onFailure
 */
export function metricPlots(id, signal, onFailure) {
  const grid = h('div', { class: 'plots' });
  const csv = csvButton(id);
  const element = h('section', { class: 'card', id: 'metrics', hidden: true },
    h('header', null, h('h2', null, 'Metrics'), csv.element), csv.note, grid);
  const series = new MetricSeries();
  /** @type {Map<string, ReturnType<typeof lineChart>>} */
  const charts = new Map();
  /** @type {string | null} */
  let cursor = null;
  let isFetching = false;

  /** @param {string} plot */
  function chartOf(plot) {
    let chart = charts.get(plot);
    if (!chart) {
      chart = lineChart(plot);
      charts.set(plot, chart);
      grid.append(chart.element);
    }
    return chart;
  }

  const draw = perFrame(() => {
    if (series.isEmpty) return;
    element.hidden = false;
    for (const [plot, lines] of series.plots()) chartOf(plot).set(lines);
  });

  async function fetchNewPages() {
    let hasMore = true;
    while (hasMore && !series.isFull) {
      const page = await api.metrics(id, { cursor, limit: PAGE }, signal);
      cursor = page.cursor;
      series.add(page.metrics);
      draw();
      hasMore = page.has_more;
    }
  }

  const refresh = atMostEvery(1000, async () => {
    isFetching = true;
    try {
      await fetchNewPages();
    } catch (error) {
      if (!signal.aborted) onFailure(error);
    } finally {
      isFetching = false;
    }
  });

  return {
    element,
    refresh: () => refresh(),
    /**
     * Adds a live event's points when they follow those that are here; otherwise fetches what is
     * missing.
     * @param {Api.MetricsEvent} event
     */
    take(event) {
      if (isFetching || cursor === null || event.from !== cursor) {
        refresh();
        return;
      }
      cursor = event.cursor;
      series.add(event.metrics);
      draw();
    },
    stop: () => refresh.stop(),
  };
}
