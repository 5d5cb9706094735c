/**
 * An API gateway as teams write it by hand: Fastify in front, ClientKafka behind, one route.
 *
 * KAFKA: the broker. PORT: where to listen. Topics `bench.echo` and `bench.echo.reply` must exist: a Nest client ends
 * at its start without them.
 */
import 'reflect-metadata';
import { Controller, Get, Inject, Module, type OnModuleInit, Param } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ClientKafka, ClientsModule, Transport } from '@nestjs/microservices';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { Partitioners } from 'kafkajs';
import { type Observable, timeout } from 'rxjs';

@Controller('orders')
class Orders implements OnModuleInit {
  constructor(@Inject('BENCH') private readonly client: ClientKafka) {}

  async onModuleInit() {
    this.client.subscribeToResponseOf('bench.echo');
    await this.client.connect();
  }

  @Get(':id')
  get(@Param('id') id: string): Observable<unknown> {
    return this.client.send('bench.echo', { id }).pipe(timeout(5000));
  }
}

@Module({
  imports: [
    ClientsModule.register([
      {
        name: 'BENCH',
        transport: Transport.KAFKA,
        options: {
          client: { clientId: 'bench-gateway', brokers: [process.env.KAFKA!] },
          consumer: { groupId: 'bench-gateway' },
          producer: { createPartitioner: Partitioners.DefaultPartitioner },
        },
      },
    ]),
  ],
  controllers: [Orders],
})
class App {}

const app = await NestFactory.create<NestFastifyApplication>(App, new FastifyAdapter({ logger: false }), {
  logger: ['error', 'warn'],
});
await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
console.log('ready');
