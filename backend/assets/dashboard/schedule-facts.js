// What a schedule says, for people. No elements here.

import { cronText } from './cron-text.js';
import { count, localZone, momentIn } from './format.js';

/** @typedef {Api.Schedule['overlap']} Overlap */
/** @typedef {Api.Schedule['catch_up']} CatchUp */

/**
 * What happens at a slot while the last operation has not ended.
 * @type {[Overlap, string][]}
 */
export const OVERLAPS = [
  ['skip', 'Leave the slot out'],
  ['queue', 'Wait until it has ended'],
  ['replace', 'Cancel it, and start the new one'],
];

/**
 * What happens to slots that nobody could start within a minute.
 * @type {[CatchUp, string][]}
 */
export const CATCH_UPS = [
  ['skip', 'Leave them out'],
  ['once', 'Start the last one of them'],
];

/**
 * @param {[string, string][]} choices
 * @param {string} value
 */
export const choiceText = (choices, value) =>
  choices.find(([name]) => name === value)?.[1] ?? value;

/**
 * The refusal of its newest slot; null when a later one has been started.
 * @param {Pick<Api.Schedule, 'last_run' | 'last_error'>} schedule
 */
export function newestError({ last_run: run, last_error: error }) {
  if (error && run?.slot && Date.parse(run.slot) >= Date.parse(error.slot)) return null;
  return error;
}

/**
 * The state of a schedule: the status that gives it its colour, and its word.
 * @param {Pick<Api.Schedule, 'paused' | 'last_run' | 'last_error'>} schedule
 * @returns {[string, string]}
 */
export function stateOf(schedule) {
  if (schedule.paused) return ['paused', 'paused'];
  return newestError(schedule) ? ['failed', 'refused'] : ['completed', 'on'];
}

/**
 * How many of its slots became no operation, and why that was.
 * @param {Pick<Api.Schedule, 'skipped' | 'missed'>} schedule
 */
export function leftOut({ skipped, missed = 0 }) {
  const late = missed > 0 ? `, and ${count(missed)} that nobody could start in time` : '';
  return count(skipped) + late;
}

/**
 * When it starts something, as a sentence; the cron line itself when that has no common shape.
 * @param {Pick<Api.Schedule, 'cron'>} schedule
 */
export function whenText({ cron }) {
  const text = cronText(cron);
  return text === null ? cron : text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * Whether its cron line begins with a field for seconds. Then all of its slots are told with them.
 * @param {Pick<Api.Schedule, 'cron'>} schedule
 */
export const hasSeconds = ({ cron }) => cron.trim().split(/\s+/).length === 6;

/**
 * A slot in the time of the browser, and in that of the schedule when it has another one.
 * @param {string} slot
 * @param {string} zone
 * @param {boolean} withSeconds
 * @returns {string[]}
 */
export function slotTexts(slot, zone, withSeconds) {
  const [local, own] = [localZone(), zone].map((one) => momentIn(slot, one, withSeconds));
  return local === own ? [local] : [local, own].filter(Boolean);
}

/**
 * The same in one line: "Mon, Nov 30, 08:30 UTC (09:30 Europe/Berlin)".
 * @param {string} slot
 * @param {string} zone
 * @param {boolean} withSeconds
 */
export function slotLine(slot, zone, withSeconds) {
  const [local, own] = slotTexts(slot, zone, withSeconds);
  if (own === undefined) return local;
  const day = local.slice(0, local.lastIndexOf(', ') + 2);
  return `${local} (${own.startsWith(day) ? own.slice(day.length) : own})`;
}

/**
 * The schedules whose id, type, line or sentence has this text in it.
 * @param {Api.Schedule[]} schedules
 * @param {string} search
 */
export function matchingSchedules(schedules, search) {
  const wanted = search.trim().toLowerCase();
  const text = (/** @type {Api.Schedule} */ one) =>
    [one.schedule_id, one.operation_type, one.cron, one.time_zone, whenText(one)].join(' ');
  return schedules.filter((one) => text(one).toLowerCase().includes(wanted));
}
