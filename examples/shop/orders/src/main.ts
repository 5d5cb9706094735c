/**
 * The shop's orders: a NestJS microservice on Kafka.
 *
 * Look at: src/orders.ts, whose handlers the gateway calls by their pattern. Nothing here knows of the gateway.
 * Run: npm install && npm run build && KAFKA=127.0.0.1:9092 npm start
 */
import 'reflect-metadata';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type KafkaOptions, Transport } from '@nestjs/microservices';
import { Partitioners } from 'kafkajs';
import { Orders } from './orders.js';

@Module({ controllers: [Orders] })
class Shop {}

const app = await NestFactory.createMicroservice<KafkaOptions>(Shop, {
  logger: ['error', 'warn'],
  transport: Transport.KAFKA,
  options: {
    client: { clientId: 'orders', brokers: [process.env.KAFKA ?? '127.0.0.1:9092'] },
    consumer: { groupId: 'orders', maxWaitTimeInMs: 500 },
    producer: { createPartitioner: Partitioners.DefaultPartitioner },
    subscribe: { fromBeginning: true }, // a message written while the service started is read too
    run: { partitionsConsumedConcurrently: 16 }, // a slow handler holds up its own partition only
  },
});
await app.listen();
console.log('orders ready');
