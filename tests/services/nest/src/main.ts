/**
 * A NestJS microservice on Kafka that answers in every way Nest can, for tests of the `nest` dialect.
 *
 * BOOTSTRAP: the broker. LEDGER: a file that gets a line of JSON for each message handled. Prints `ready`
 * when it consumes all partitions of its topics, which must exist.
 */
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type KafkaOptions, Transport } from '@nestjs/microservices';
import { Partitioners } from 'kafkajs';
import { Handlers } from './handlers.js';
import { LedgerInterceptor } from './ledger.js';

@Module({ controllers: [Handlers] })
class App {}

const app = await NestFactory.createMicroservice<KafkaOptions>(App, {
  logger: ['error', 'warn'],
  transport: Transport.KAFKA,
  options: {
    client: { clientId: 'nest-tests', brokers: [process.env.BOOTSTRAP!], retry: { maxRetryTime: 2000, retries: 1000 } },
    consumer: {
      groupId: process.env.GROUP ?? 'nest-tests',
      allowAutoTopicCreation: false,
      maxWaitTimeInMs: 500, // a fetch under way is waited for at the end
    },
    producer: { createPartitioner: Partitioners.DefaultPartitioner, allowAutoTopicCreation: false },
    // A first request may be written before the group has its first offsets: read it all the same.
    subscribe: { fromBeginning: true },
    // Nest waits for a handler before it takes the next message of that partition: slow ones must not hold up others.
    run: { partitionsConsumedConcurrently: 64 },
  },
});
app.useGlobalInterceptors(new LedgerInterceptor(process.env.LEDGER));
app.enableShutdownHooks();
await app.listen(); // resolves when the group is joined, its partitions assigned
console.log('ready');
