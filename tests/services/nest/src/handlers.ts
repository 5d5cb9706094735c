/** One handler for each way of answering. Payloads say how long, how many, how large. */
import { Catch, Controller, type RpcExceptionFilter, UseFilters } from '@nestjs/common';
import { Ctx, EventPattern, KafkaContext, MessagePattern, Payload, RpcException } from '@nestjs/microservices';
import { concatMap, delay, from, map, type Observable, of, range, throwError } from 'rxjs';
import { received } from './ledger.js';

@Catch()
class Untouched implements RpcExceptionFilter {
  catch(error: unknown): Observable<unknown> {
    return throwError(() => error);
  }
}

@Controller()
export class Handlers {
  @MessagePattern('orders.get')
  order(@Payload() { id }: { id: string }) {
    if (String(id) === '999') {
      throw new RpcException({ status: 404, message: `no order ${id}` });
    }
    return { id, item: 'lamp', quantity: 2 };
  }

  /** An authorizer: tokens that begin with `good` are their owner's, `broken` ones are an error, all others refused. */
  @MessagePattern('nest.verify')
  verify(@Payload() { token }: { token: string }) {
    if (token === 'broken') {
      throw new Error(`no idea what ${token} is`);
    }
    if (token === 'nobody') {
      return null;
    }
    if (!token.startsWith('good')) {
      throw new RpcException({ status: token === 'forbidden' ? 403 : 401, message: `no such token: ${token}` });
    }
    return { subject: token.slice(5), scopes: ['orders:read'], claims: { tier: 'gold' }, ttl: 60 };
  }

  /** What arrived, as this service sees it. (A returned `key` or `value` would be taken as those of the record.) */
  @MessagePattern('nest.echo')
  echo(@Payload() payload: unknown, @Ctx() kafka: KafkaContext) {
    const messageKey = kafka.getMessage().key as unknown;
    return {
      payload,
      headers: received(kafka),
      messageKey: messageKey instanceof Buffer ? messageKey.toString() : messageKey,
      topic: kafka.getTopic(),
      partition: kafka.getPartition(),
    };
  }

  @MessagePattern('nest.number')
  number() {
    return 42;
  }

  @MessagePattern('nest.text')
  text(@Payload() payload: { text?: string }) {
    return payload.text ?? 'just text';
  }

  /** undefined, or null if asked for: Nest writes the same record for both. */
  @MessagePattern('nest.nothing')
  nothing(@Payload() payload: { null?: boolean }) {
    return payload.null ? null : undefined;
  }

  @MessagePattern('nest.list')
  list() {
    return [{ id: 1 }, { id: 2 }];
  }

  /** An object that looks like an HTTP answer. */
  @MessagePattern('nest.shaped')
  shaped() {
    return { status: 201, headers: { location: '/orders/7' }, body: { id: 7 } };
  }

  /** An object that Nest takes as the record itself. */
  @MessagePattern('nest.record')
  record() {
    return { key: 'k', value: JSON.stringify({ id: 7 }), headers: { 'x-shelf': 'b4' } };
  }

  /** `{error: anything}` is an RpcException with it, `{plain: text}` an ordinary Error. */
  @MessagePattern('nest.fail')
  fail(@Payload() payload: { error?: string | object; plain?: string }) {
    if (payload.error !== undefined) {
      throw new RpcException(payload.error);
    }
    throw new Error(payload.plain ?? 'something broke');
  }

  /** Rejects with `error` as it is: what teams' own exception filters put on the wire. */
  @MessagePattern('nest.reject')
  @UseFilters(new Untouched())
  reject(@Payload() payload: { error: unknown }): Observable<unknown> {
    return throwError(() => payload.error);
  }

  @MessagePattern('nest.slow')
  slow(@Payload() payload: { delay_ms: number }): Observable<unknown> {
    return of({ waited_ms: payload.delay_ms }).pipe(delay(payload.delay_ms));
  }

  /** Never answers: to Nest it is an event. */
  @EventPattern('nest.silent')
  silent(@Payload() _payload: unknown) {}

  /**
   * `count` values, `delay_ms` apart, with `size` letters each if that is said; `fail_after` of them an error comes
   * instead of the next one. `values` are sent as they are instead.
   */
  @MessagePattern('nest.stream')
  stream(
    @Payload()
    payload: { count?: number; delay_ms?: number; fail_after?: number; size?: number; values?: unknown[] },
  ): Observable<unknown> {
    if (payload.values !== undefined) {
      return from(payload.values);
    }
    const blob = payload.size ? { blob: 'x'.repeat(payload.size) } : {};
    return range(1, payload.count ?? 0).pipe(
      concatMap((n) => (payload.delay_ms ? of(n).pipe(delay(payload.delay_ms)) : of(n))),
      map((n) => {
        if (payload.fail_after !== undefined && n > payload.fail_after) {
          throw new RpcException({ status: 409, message: `no value ${n}` });
        }
        return { n, ...blob };
      }),
    );
  }

  @MessagePattern('nest.large')
  large(@Payload() payload: { size: number }) {
    return { blob: 'x'.repeat(payload.size) };
  }

  /** Answers `delay_ms` later without holding up its partition meanwhile: for replies after the deadline. */
  @EventPattern('nest.late')
  late(@Payload() payload: { delay_ms: number }, @Ctx() context: unknown) {
    const kafka = context as KafkaContext; // the type of @EventPattern admits no other parameter
    const headers = received(kafka);
    const reply = {
      topic: headers['kafka_replyTopic'],
      messages: [
        {
          partition: Number(headers['kafka_replyPartition']),
          value: JSON.stringify({ late: true }),
          headers: { kafka_correlationId: headers['kafka_correlationId'], 'kafka_nest-is-disposed': Buffer.from([0]) },
        },
      ],
    };
    setTimeout(() => kafka.getProducer().send(reply).catch(console.error), payload.delay_ms);
  }
}
