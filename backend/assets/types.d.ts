// Types of the JSDoc comments in dashboard/ and docs/. Never served: only `scripts/check-dashboard`
// reads this file.

/** Documents of the REST interface; /openapi.json describes each field. */
declare namespace Api {
  type Status = 'pending' | 'running' | 'completed' | 'failed' | 'cancelled';
  type WorkerStatus = 'AVAILABLE' | 'BUSY' | 'TEMPORARILY_UNAVAILABLE';
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
    progress: Progress;
    metadata: Record<string, unknown>;
    execution?: ExecutionOptions | null;
    attempt: number;
    attempts: Attempt[];
    worker_id: string | null;
    queue: string;
    queue_position?: number | null;
    error?: { code: string; message: string } | null;
    error_message: string | null;
    forced?: boolean;
    result_ref?: { size: number } | null;
    retry_at?: string | null;
    retry_of?: string | null;
    requested_by?: string | null;
    archived?: boolean;
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
    data: { error?: { message?: string }; reason?: string } | null;
  }

  interface History {
    history: HistoryEntry[];
    truncated: boolean;
  }

  interface MetricPoint {
    name: string;
    timestamp: string;
    value: number | null;
    attempt?: number | null;
  }

  interface MetricsPage {
    metrics: MetricPoint[];
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
  }

  interface TypeStats extends Record<Status, number> {
    worker_type: string;
    workers: number;
  }

  interface Stats {
    operations: Record<Status | 'total', number>;
    queues: Queue[];
    workers: Record<WorkerStatus, number>;
    minutes: Minute[];
    by_type: TypeStats[];
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
    description: string;
    workers: number;
    request_schema: Schema;
  }

  interface Started {
    operation_id: string;
    warning?: string | null;
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
  worker?(event: unknown): void;
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
  /** Shown below the axis. */
  tick: string;
}

interface Series {
  name: string;
  points: Point[];
}
