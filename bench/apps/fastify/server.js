// Fastify: its JSON schemas validate bodies and write answers; its hooks check the key and inflate gzip.
'use strict'

const { randomUUID, timingSafeEqual } = require('node:crypto')
const fs = require('node:fs')
const zlib = require('node:zlib')
const fastify = require('fastify')

const key = Buffer.from(`Bearer ${process.env.BENCH_KEY}`)
const file = fs.openSync(process.env.BENCH_FILE, 'a')

const event = {
  type: 'object',
  required: ['event', 'properties', 'timestamp'],
  properties: {
    event: { type: 'string' },
    properties: { type: 'object' },
    timestamp: { type: 'string', format: 'date-time' },
    messageId: { type: ['string', 'null'] }
  }
}
const status = { type: 'string' }
const stored = { type: 'object', properties: { status, messageId: { type: 'string' } } }
const allStored = {
  type: 'object',
  properties: { status, messageIds: { type: 'array', items: { type: 'string' } } }
}

// The whole line is with the kernel before the answer goes out. Gathering the lines of one turn of the loop in
// one write costs less than a write for each.
let waiting = []
let done = []
function keep (lines) {
  return new Promise((resolve, reject) => {
    if (waiting.length === 0) setImmediate(flush)
    waiting.push(lines)
    done.push([resolve, reject])
  })
}
function flush () {
  const lines = waiting.join('')
  const waiters = done
  waiting = []
  done = []
  try {
    fs.writeSync(file, lines)
    for (const [resolve] of waiters) resolve()
  } catch (error) {
    for (const [, reject] of waiters) reject(error)
  }
}

function line (one) {
  if (!one.messageId) one.messageId = randomUUID()
  return JSON.stringify(one) + '\n'
}

const app = fastify({ bodyLimit: 16 * 1024 * 1024, logger: false, keepAliveTimeout: 300000 })

app.addHook('onRequest', async (request, reply) => {
  const given = Buffer.from(request.headers.authorization || '')
  if (given.length !== key.length || !timingSafeEqual(given, key)) {
    return reply.code(401).send({ error: 'Unauthorized' })
  }
})

app.addHook('preParsing', async (request, reply, payload) => {
  if (request.headers['content-encoding'] !== 'gzip') return payload
  delete request.headers['content-length']
  return payload.pipe(zlib.createGunzip())
})

app.post('/v1/track', { schema: { body: event, response: { 200: stored } } }, async (request) => {
  await keep(line(request.body))
  return { status: 'ok', messageId: request.body.messageId }
})

const body = { type: 'array', items: event, minItems: 1 }
app.post('/v1/bulk-track', { schema: { body, response: { 200: allStored } } }, async (request) => {
  await keep(request.body.map(line).join(''))
  return { status: 'ok', messageIds: request.body.map((one) => one.messageId) }
})

app.listen({ host: '127.0.0.1', port: Number(process.env.BENCH_PORT), backlog: 4096 })
