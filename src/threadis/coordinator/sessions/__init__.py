"""Clients as the coordinator knows them: lists, subscriptions, tracking, MONITOR, departures."""
