"""From Kafka notifications and files to panels, reports and bills that can be proved."""
