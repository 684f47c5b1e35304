// The equity curve in a backtest's result: [[time, equity], …] or [{timestamp, equity}, …].

/**
 * Points of the curve, or null when the result has none.
 * @param {any} result
 * @returns {Point[] | null}
 */
export function equityPoints(result) {
  const curve = result?.equity_curve;
  if (!Array.isArray(curve) || curve.length < 2) return null;

  return curve.map((entry, x) => {
    const [time, equity] = Array.isArray(entry)
      ? entry
      : [entry?.timestamp, entry?.equity ?? entry?.value];
    return { x, y: Number(equity), label: String(time), tick: String(time).slice(0, 10) };
  }).filter((point) => Number.isFinite(point.y));
}
