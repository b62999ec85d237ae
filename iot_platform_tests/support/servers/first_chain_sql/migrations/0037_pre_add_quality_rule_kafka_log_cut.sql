INSERT INTO quality_rule (rule, enabled, severity, threshold, window_seconds, clear_seconds, hold_seconds, parameters, description) VALUES
('kafka_log_cut', true, 'ERROR', 0, 86400, 0, 3600, '{}',
 'The log of a Kafka partition turned out to have been cut more than threshold times within window_seconds: messages that were acknowledged and not drained may be lost (`iot audit`).')
ON CONFLICT DO NOTHING;
