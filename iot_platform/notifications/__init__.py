"""Alertmanager's notifications in group chats: WeCom, DingTalk and Feishu want bodies, and give answers, that its web hook knows not."""
