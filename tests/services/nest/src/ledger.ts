/** Writes down every message a handler got, so that a test can say what was produced and what was not. */
import { appendFileSync } from 'node:fs';
import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import type { KafkaContext } from '@nestjs/microservices';
import type { Observable } from 'rxjs';

export class LedgerInterceptor implements NestInterceptor {
  constructor(private readonly path: string | undefined) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    if (this.path) {
      appendFileSync(this.path, JSON.stringify(entry(context)) + '\n');
    }
    return next.handle();
  }
}

function entry(context: ExecutionContext) {
  const kafka = context.switchToRpc().getContext<KafkaContext>();
  const headers = received(kafka);
  return {
    topic: kafka.getTopic(),
    partition: kafka.getPartition(),
    correlation_id: headers['kafka_correlationId'] ?? null,
    headers,
    payload: context.switchToRpc().getData(),
  };
}

/** The headers of the message as text, as Nest reads them: what is no text stays readable. */
export function received(kafka: KafkaContext): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(kafka.getMessage().headers ?? {})) {
    headers[name] = typeof value === 'string' ? value : value instanceof Buffer ? value.toString() : JSON.stringify(value);
  }
  return headers;
}
