-- A small shop: what a warehouse might hold.
CREATE SCHEMA shop;

CREATE TABLE shop.customers (
  id bigint PRIMARY KEY,
  email text NOT NULL,
  name text,
  country text,
  created_at timestamptz NOT NULL
);

CREATE TABLE shop.orders (
  id bigint PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES shop.customers,
  amount numeric(10, 2) NOT NULL,
  status text NOT NULL,
  ordered_at timestamptz NOT NULL
);

INSERT INTO shop.customers VALUES
  (1, 'ada@example.com', 'Ada Lovelace', 'GB', '2024-01-10 09:00+00'),
  (2, 'grace@example.com', 'Grace Hopper', 'US', '2024-01-12 14:30+00'),
  (3, 'zoe@example.com', 'Zoë Ångström', 'SE', '2024-02-01 08:15+00'),
  (4, 'li@example.com', '李小龙', 'CN', '2024-02-20 22:45+00'),
  (5, 'edsger@example.com', 'Edsger Dijkstra', 'NL', '2024-03-03 11:00+00'),
  (6, 'barbara@example.com', 'Barbara Liskov', 'US', '2024-03-15 16:20+00');

INSERT INTO shop.orders VALUES
  (101, 1, 120.00, 'paid', '2024-02-01 10:00+00'),
  (102, 1, 35.50, 'paid', '2024-03-01 10:00+00'),
  (103, 2, 80.00, 'paid', '2024-02-14 18:00+00'),
  (104, 3, 19.99, 'refunded', '2024-03-02 12:00+00'),
  (105, 4, 640.00, 'paid', '2024-03-10 07:30+00'),
  (106, 5, 42.00, 'paid', '2024-03-20 15:45+00');
