import assert from 'node:assert/strict';
import { test } from 'node:test';

import { cronText } from '../../backend/assets/dashboard/cron-text.js';

/** @type {[string, string][]} */
const READ = [
  ['30 9 * * MON-FRI', '09:30 on weekdays'],
  ['30 9 * * 1-5', '09:30 on weekdays'],
  ['0 30 9 * * mon-fri', '09:30 on weekdays'],
  ['15 30 9 * * *', '09:30:15 every day'],
  ['0 0 * * *', '00:00 every day'],
  ['0 9,17 * * *', '09:00 and 17:00 every day'],
  ['0,30 9 * * SAT,SUN', '09:00 and 09:30 on weekends'],
  ['0 9 * * MON', '09:00 on Mondays'],
  ['0 9 * * FRI,MON,WED', '09:00 on Mondays, Wednesdays and Fridays'],
  ['0 9 * * TUE-THU', '09:00 from Tuesday to Thursday'],
  ['0 6 1 * *', '06:00 on the 1st of each month'],
  ['0 6 1,15 * *', '06:00 on the 1st and 15th of each month'],
  ['0 6 11,22,23 * *', '06:00 on the 11th, 22nd and 23rd of each month'],
  ['0 0 1 JAN *', '00:00 on the 1st of January'],
  ['0 0 1 6-8 *', '00:00 on the 1st of each month from June to August'],
  ['0 9 * JAN,JUL MON', '09:00 on Mondays in January and July'],
  ['0 9 * 6-8 *', '09:00 from June to August'],
  ['* * * * *', 'every minute'],
  ['*/1 * * * *', 'every minute'],
  ['*/15 * * * *', 'every 15 minutes'],
  ['*/15 9-17 * * 1-5', 'every 15 minutes from 09:00 to 17:59 on weekdays'],
  ['*/5 8 * * *', 'every 5 minutes from 08:00 to 08:59'],
  ['0 * * * *', 'every hour'],
  ['5 * * * *', 'every hour at minute 5'],
  ['30 9-17 * * *', 'every hour from 09:30 to 17:30'],
  ['0 */2 * * *', 'every 2 hours'],
  ['10 */6 * * *', 'every 6 hours at minute 10'],
  ['* * * * * *', 'every second'],
  ['*/2 * * * * *', 'every 2 seconds'],
  ['  30   9 * *  1-5 ', '09:30 on weekdays'],
];

for (const [line, text] of READ) {
  test(`${line} is ${text}`, () => assert.equal(cronText(line), text));
}

// What is rare, uneven, or read differently than it looks, stays as it is.
const NOT_READ = [
  '', 'x', '* * * *', '* * * * * * *', '*/7 * * * *', '0 */5 * * *', '*/40 * * * * *', '5/10 * * * *',
  '10-40/5 * * * *', '0 9 13 * FRI', '0 9 * */2 *', '0 9 * * 1-5/2', '0 9 31-2 * *', '0 9 L * *',
  '0 25 * * *', '60 9 * * *', '0 9 * * 9', '0 9 * 13 *', '0 9 * 0 *', '1,2,3 8,9 * * *', '0 9 2-5 * *',
  '0,30 * * * * *', '5 * * * * *', '5 */2 * * * *', '*/0 * * * *',
];

for (const line of NOT_READ) {
  test(`nothing is said about ${JSON.stringify(line)}`, () => assert.equal(cronText(line), null));
}
