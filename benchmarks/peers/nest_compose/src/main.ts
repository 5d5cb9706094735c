/**
 * A gateway that composes, as teams write it by hand: Fastify in front, undici and ClientKafka behind.
 *
 * GET /home/ID merges three answers over HTTP; with KAFKA set GET /page/ID merges one over HTTP and two over Kafka.
 * ORIGIN: the HTTP service. KAFKA: the broker, whose topics `bench.echo` and `bench.echo.reply` must exist. PORT: where
 * to listen.
 */
import 'reflect-metadata';
import { Controller, Get, Inject, Injectable, Module, type OnModuleInit, Param } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientKafka, ClientsModule, Transport } from '@nestjs/microservices';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Partitioners } from 'kafkajs';
import { firstValueFrom, timeout } from 'rxjs';
import { Pool } from 'undici';

@Injectable()
class Origin {
  private readonly pool = new Pool(process.env.ORIGIN!, { connections: 256, pipelining: 1, headersTimeout: 2000 });

  async get(path: string): Promise<unknown> {
    const { statusCode, body } = await this.pool.request({
      path,
      method: 'GET',
      headers: { accept: 'application/json' },
      signal: null,
    });
    if (statusCode !== 200) {
      await body.dump();
      throw new Error(`${path} answered ${statusCode}`);
    }
    return body.json();
  }
}

@Controller('home')
class Home {
  constructor(@Inject(Origin) private readonly origin: Origin) {}

  @Get(':id')
  async get(@Param('id') id: string) {
    const [user, orders, recs] = await Promise.all([
      this.origin.get(`/users/${id}`),
      this.origin.get(`/orders/${id}`),
      this.origin.get(`/recs/${id}`),
    ]);
    return { user, orders, recs };
  }
}

@Controller('page')
class Page implements OnModuleInit {
  constructor(
    @Inject(Origin) private readonly origin: Origin,
    @Inject('BENCH') private readonly client: ClientKafka,
  ) {}

  async onModuleInit() {
    this.client.subscribeToResponseOf('bench.echo');
    await this.client.connect();
  }

  private ask(what: string, id: string) {
    return firstValueFrom(this.client.send('bench.echo', { what, id }).pipe(timeout(5000)));
  }

  @Get(':id')
  async get(@Param('id') id: string) {
    const [user, orders, stock] = await Promise.all([
      this.origin.get(`/users/${id}`),
      this.ask('orders', id),
      this.ask('stock', id),
    ]);
    return { user, orders, stock };
  }
}

const kafka = ClientsModule.register([
  {
    name: 'BENCH',
    transport: Transport.KAFKA,
    options: {
      client: { clientId: 'bench-gateway', brokers: [process.env.KAFKA ?? ''] },
      consumer: { groupId: 'bench-gateway' },
      producer: { createPartitioner: Partitioners.DefaultPartitioner },
    },
  },
]);

@Module({
  imports: process.env.KAFKA ? [kafka] : [],
  controllers: process.env.KAFKA ? [Home, Page] : [Home],
  providers: [Origin],
})
class App {}

const app = await NestFactory.create<NestFastifyApplication>(App, new FastifyAdapter({ logger: false }), {
  logger: ['error', 'warn'],
});
await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
console.log('ready');
