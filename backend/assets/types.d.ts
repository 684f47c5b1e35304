// Types of the JSDoc comments in dashboard/ and docs/. Never served: only `scripts/check-dashboard`
// reads this file.

/** Documents of the REST interface; /openapi.json describes each field. */
declare namespace Api {
  type Status = 'pending' | 'running' | 'completed' | 'failed' | 'cancelled';
  type WorkerStatus = 'AVAILABLE' | 'BUSY' | 'DRAINING' | 'TEMPORARILY_UNAVAILABLE';
  type AttemptOutcome = 'completed' | 'failed' | 'cancelled' | 'released' | 'lost';

  interface Requirements {
    gpu?: boolean;
    cores?: number | null;
    memory_gb?: number | null;
  }

  interface Capabilities {
    gpu: boolean;
    cores?: number | null;
    memory_gb?: number | null;
    [name: string]: unknown;
  }

  interface ExecutionOptions {
    requirements?: Requirements;
    labels?: Record<string, string>;
    [name: string]: unknown;
  }

  interface Progress {
    percentage: number;
    current_step: string | null;
    estimated_remaining_seconds: number | null;
    [name: string]: unknown;
  }

  interface Attempt {
    attempt: number;
    worker_id: string;
    started_at: string;
    ended_at: string | null;
    outcome: AttemptOutcome | null;
    error: string | null;
  }

  interface Operation {
    operation_id: string;
    operation_type: string;
    status: Status;
    created_at: string;
    started_at: string | null;
    completed_at: string | null;
    updated_at: string;
    duration_seconds: number | null;
    cancel_requested_at: string | null;
    cancel_reason?: string;
    progress: Progress;
    metadata: Record<string, unknown>;
    execution?: ExecutionOptions | null;
    attempt: number;
    attempts: Attempt[];
    worker_id: string | null;
    queue: string;
    queue_position?: number | null;
    waits_for_permit?: { key: string, limit: number, held: number };
    error?: { code: string; message: string; permanent?: boolean } | null;
    error_message: string | null;
    forced?: boolean;
    result_ref?: { size: number } | null;
    /** From 1 to 5; absent: 3. */
    priority?: number;
    start_at?: string;
    expires_at?: string;
    retry_at?: string | null;
    schedule_id?: string | null;
    retry_of?: string | null;
    retried_as?: string | null;
    /** What it is about, in one line. */
    summary?: string | null;
    requested_by?: string | null;
    archived?: boolean;
    truncated?: ('result' | 'parameters')[];
  }

  interface OperationShown {
    data: Operation;
    warning?: string | null;
  }

  interface OperationPage {
    operations: Operation[];
    total: number;
  }

  interface HistoryEntry {
    event: string;
    sequence: number;
    time: string | null;
    attempt: number | null;
    worker_id: string | null;
    requested_by?: string | null;
    data: { error?: { message?: string }; reason?: string; queue?: string } | null;
  }

  interface History {
    history: HistoryEntry[];
    truncated: boolean;
  }

  interface MetricPoint {
    name: string;
    timestamp: string;
    value: number | null;
    step?: number | null;
    attempt?: number | null;
  }

  interface MetricsPage {
    metrics: MetricPoint[];
    cursor: string;
    has_more: boolean;
  }

  interface LogLine {
    timestamp: string;
    level: string;
    text: string;
    fields?: Record<string, unknown>;
    attempt: number;
    worker_id: string;
  }

  interface LogsPage {
    lines: LogLine[];
    cursor: string;
    has_more: boolean;
  }

  interface Minute {
    minute: string;
    created: number;
    completed: number;
    failed: number;
    cancelled: number;
  }

  interface Queue {
    worker_type: string;
    queue: string;
    pending: number;
    running: number;
    oldest_pending_seconds: number | null;
    /** Why no worker can run what waits in it. */
    nobody?: string | null;
  }

  /** A queue as `GET /api/v1/queues` tells it. */
  interface QueueOverview {
    worker_type: string;
    queue: string;
    /** From 1 to 5. */
    priority: number;
    waiting: number;
    /** Those among them that wait for a permit of their concurrency key. */
    waiting_for_permit: number;
    running: number;
    /** They wait in it when they are due. */
    delayed: number;
    oldest_seconds: number | null;
    /** Those that could run its operations. */
    workers: number;
    paused: boolean;
    /** Null: until somebody resumes it. */
    paused_until: string | null;
  }

  interface Schedule {
    schedule_id: string;
    domain: string;
    operation_type: string;
    /** A start body. */
    body: Record<string, unknown>;
    cron: string;
    time_zone: string;
    overlap: 'skip' | 'queue' | 'replace';
    catch_up: 'skip' | 'once';
    paused: boolean;
    /** Empty while it is paused. */
    next_runs: string[];
    last_run: { operation_id: string; slot: string | null; at: string } | null;
    /** The last slot that was refused; later ones may have been started. */
    last_error: { slot: string; code: string; message: string; at: string } | null;
    skipped: number;
    /** Absent from backends of the release before. */
    missed?: number;
    waiting_slots?: number;
    created_at: string;
    updated_at: string;
    created_by: string | null;
  }

  /** What became of one of the operations that match a filter. */
  interface OneByFilter {
    operation_id: string;
    status_code: number;
    /** Why it was refused. */
    code?: string;
    retried_as?: string;
    asked_before?: boolean;
    replaced?: boolean;
  }

  interface DoneByFilter {
    matched: number;
    done: number;
    has_more: boolean;
    results: OneByFilter[];
    /** Operations of the archive are missing. */
    warning?: string | null;
  }

  interface TypeStats extends Record<Status, number> {
    worker_type: string;
    workers: number;
  }

  /** In seconds. */
  interface Quantiles {
    p50: number;
    p95: number;
  }

  /** Operations of one type that failed with one code. */
  interface FailureCount {
    operation_type: string;
    error_code: string;
    operations: number;
  }

  /** What ended in a window of time, up to now. */
  interface EndedStats {
    window_seconds: number;
    operations: number;
    /** More ended: the figures are about the newest ones. */
    is_partial?: boolean;
    waiting: Quantiles | null;
    running: Quantiles | null;
    failures: FailureCount[];
  }

  interface Stats {
    operations: Record<Status | 'total', number>;
    queues: Queue[];
    workers: Record<WorkerStatus, number>;
    minutes: Minute[];
    by_type: TypeStats[];
    ended: EndedStats;
  }

  interface CurrentOperation {
    operation_id: string;
    attempt: number;
    progress: Progress;
  }

  interface Worker {
    worker_id: string;
    worker_type: string;
    status: WorkerStatus;
    version: string;
    endpoint_url: string;
    capabilities: Capabilities;
    slots: number;
    current_operations: CurrentOperation[];
    finished: number;
    fenced: number;
    health_check_failures: number;
    last_health_check: string;
    last_pull_at: string | null;
    registered_at: string;
  }

  interface WorkerType {
    worker_type: string;
    domain: string;
    /** The type that has the domain, when it is another one. */
    domain_owner?: string | null;
    schema_error?: string | null;
    description: string;
    workers: number;
    request_schema: Schema;
    result_schema?: Schema;
  }

  interface Started {
    operation_id: string;
    warning?: string | null;
  }

  interface Cancelled {
    status: string;
  }

  interface Violation {
    path: string;
    message: string;
  }

  interface Problem {
    error?: string;
    code?: string;
    scope?: string;
    violations?: Violation[];
  }

  /** Live events; docs/events.md describes them. */
  interface ProgressEvent {
    operation_id: string;
    worker_id: string;
    attempt: number;
    progress: Progress;
  }

  /** A worker's document, or that it has left. */
  type WorkerEvent = Worker | { worker_id: string; worker_type: string; removed: true };

  interface MetricsEvent {
    from: string;
    cursor: string;
    metrics: MetricPoint[];
  }
}

/**
 * A JSON Schema (2020-12). Numbers that JavaScript cannot hold are `Exact`: see dashboard/exact.js.
 */
interface Schema {
  $ref?: string;
  allOf?: Schema[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  additionalProperties?: Schema | boolean;
  const?: unknown;
  default?: unknown;
  description?: string;
  enum?: unknown[];
  examples?: unknown[];
  exclusiveMaximum?: SchemaNumber;
  exclusiveMinimum?: SchemaNumber;
  format?: string;
  items?: Schema | boolean;
  maximum?: SchemaNumber;
  minimum?: SchemaNumber;
  minItems?: number;
  pattern?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  title?: string;
  type?: string | string[];
  /** What a number of a result counts: dashboard/figures.js. */
  'x-ktrdr-unit'?: string;
  /** The figures of a result that are shown first, as paths. */
  'x-ktrdr-verdict'?: string[];
  /** A description that another one, closer to the use, hides. Set by dashboard/schema.js. */
  hiddenDescription?: string;
}

type SchemaNumber = number | import('./dashboard/exact.js').Exact;

/** The part of an OpenAPI document that the pages use. */
interface OpenApi {
  info: { title: string; version: string; description?: string };
  tags: { name: string; description?: string }[];
  paths: Record<string, Record<string, OpenApiOperation>>;
}

interface OpenApiOperation {
  operationId: string;
  summary?: string;
  description?: string;
  tags: string[];
  parameters?: OpenApiParameter[];
  requestBody?: OpenApiContent;
  responses: Record<string, OpenApiContent>;
  'x-ktrdr-result'?: Schema;
}

interface OpenApiContent {
  description?: string;
  content?: Record<string, { schema: Schema }>;
}

interface OpenApiParameter {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  schema: Schema;
}

/** What a view gets from the frame (dashboard/app.js). */
interface ViewContext {
  root: HTMLElement;
  /** Aborted when the user leaves the view. */
  signal: AbortSignal;
  query: URLSearchParams;
  /** The variable part of the address. */
  argument: string | undefined;
  listen(url: string, handlers: StreamHandlers): void;
  /** Sets the title of the page. */
  setTitle(title: string): void;
  /** Sets the single keys that act on this view. */
  keys(shortcuts: import('./dashboard/keys.js').Shortcut[]): void;
}

/** Called for what happens on the event stream (dashboard/stream.js). */
interface StreamHandlers {
  /** The stream is open; `missed` when events may have been lost before. */
  open?(missed: boolean): void;
  /** Events were lost. */
  reset?(): void;
  /** The backend refused this stream. */
  refused?(): void;
  operation?(operation: Api.Operation): void;
  progress?(event: Api.ProgressEvent): void;
  metrics?(event: Api.MetricsEvent): void;
  worker?(event: Api.WorkerEvent): void;
}

/**
 * Anything that `h` and `show` append; nested lists are flattened, and nothing is appended for the
 * empty values.
 */
type Child = Node | string | number | null | undefined | false | Child[];

interface Point {
  x: number;
  y: number;
  /** Shown beside the pointer. */
  label: string;
  /** Shown below the axis, where x is no number that says something. */
  tick?: string;
}

interface Series {
  name: string;
  points: Point[];
}
