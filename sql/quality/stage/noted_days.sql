SELECT DISTINCT date_trunc('day', n.time_from) FROM quality_late n WHERE n.feed_position > %(after)s AND n.feed_position <= %(upto)s
    ORDER BY 1 DESC
