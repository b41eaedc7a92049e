import redis
from kombu import Connection
def test_r(redis_url, key_prefix):
    c=redis.Redis.from_url(redis_url); c.set(key_prefix+"x",1); assert c.dbsize()==2; c.close()
def test_r2(redis_url):
    c=redis.Redis.from_url(redis_url); assert c.keys()==[b"errands:test:claim"]; c.close()
def test_q(rabbitmq_url):
    with Connection(rabbitmq_url) as c: c.connect()
