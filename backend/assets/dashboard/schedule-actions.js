// The buttons that run, pause, resume and delete a schedule.

import { shortId } from './about.js';
import { actionButton } from './action-button.js';
import { operationAddress } from './addresses.js';
import { api } from './api.js';
import { RequestKey } from './request-key.js';
import { toast } from './toast.js';

/**
 * @param {string} id
 * @param {string} classes
 * @param {() => void} onChange
 */
export function runButton(id, classes, onChange) {
  const key = new RequestKey();
  return actionButton('Run now', id, classes, async () => {
    const { operation_id: started, warning } = await api.runSchedule(id, key.of(id));
    key.accepted();
    const link = { label: 'Show it', address: operationAddress(started) };
    if (warning) toast(warning, 'warn', link);
    else toast(`Started ${shortId(started)}.`, 'info', link);
    onChange();
  });
}

/**
 * @param {Api.Schedule} schedule
 * @param {string} classes
 * @param {() => void} onChange
 */
export function pauseOrResumeButton({ schedule_id: id, paused }, classes, onChange) {
  return actionButton(paused ? 'Resume' : 'Pause', id, classes, async () => {
    await api.setSchedule(id, paused ? 'resume' : 'pause');
    toast(paused ? `Resumed ${id}` : `Paused ${id}: it starts nothing by itself`);
    onChange();
  });
}

/**
 * @param {string} id
 * @param {() => void} onDeleted
 */
export function deleteButton(id, onDeleted) {
  return actionButton('Delete', id, 'danger', async () => {
    await api.deleteSchedule(id);
    toast(`Deleted the schedule ${id}. Its operations stay`);
    onDeleted();
  }, 'Really delete?');
}
