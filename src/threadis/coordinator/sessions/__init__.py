"""Clients, as the coordinator knows them: lists, subscriptions, caches, MONITOR, who leaves."""
