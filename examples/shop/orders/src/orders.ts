import { setTimeout as sleep } from 'node:timers/promises';
import { Controller } from '@nestjs/common';
import { EventPattern, MessagePattern, Payload, RpcException } from '@nestjs/microservices';

interface Order {
  id: string;
  item: string;
  quantity: number;
  user?: string;
}

@Controller()
export class Orders {
  private readonly orders = new Map<string, Order>([
    ['1', { id: '1', item: 'lamp', quantity: 2, user: '1' }],
    ['2', { id: '2', item: 'chair', quantity: 4, user: '1' }],
  ]);

  /** Answers a request; the gateway makes HTTP 404 of the exception's status. */
  @MessagePattern('orders.get')
  get(@Payload() { id }: { id: string }): Order {
    const order = this.orders.get(String(id));
    if (!order) {
      throw new RpcException({ status: 404, message: `no order ${id}` });
    }
    return order;
  }

  @MessagePattern('orders.list')
  list(@Payload() { user }: { user: string }): Order[] {
    return [...this.orders.values()].filter((order) => order.user === String(user));
  }

  @MessagePattern('orders.create')
  create(@Payload() wanted: { item?: string; quantity?: number }): Order {
    if (!wanted.item) {
      throw new RpcException({ status: 400, message: 'an order needs an item' });
    }
    const order = { id: String(this.orders.size + 1), item: wanted.item, quantity: wanted.quantity ?? 1 };
    this.orders.set(order.id, order);
    return order;
  }

  /** Takes longer than the gateway's timeout allows. */
  @MessagePattern('orders.report')
  async report() {
    await sleep(5000);
    return { orders: this.orders.size };
  }

  /** An event: no one waits for an answer. */
  @EventPattern('orders.placed')
  placed(@Payload() order: Order) {
    console.log(`orders: order ${order.id} was placed`);
  }
}
