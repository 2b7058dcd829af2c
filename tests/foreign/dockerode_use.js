// dockerode: what its documentation shows. NODE_PATH names the folder of the module.
'use strict';
const assert = require('assert');
const http = require('http');
const { PassThrough } = require('stream');
const zlib = require('zlib');
const Docker = require('dockerode');

const docker = new Docker();
const SLEEP = ['sh', '-c', "trap 'exit 0' TERM; sleep 1000 & wait"];
const cases = {};
let count = 0;
const name = () => `node${process.pid}x${++count}`;

const collect = (stream) => new Promise((resolve, reject) => {
  const parts = [];
  stream.on('data', (part) => parts.push(part));
  stream.on('end', () => resolve(Buffer.concat(parts)));
  stream.on('error', reject);
});

// The output of a run is on a connection of its own: it may come after the answer that the run is over.
async function comes(stream, text) {
  let found = '';
  await until(async () => {
    for (let part = stream.read(); part !== null; part = stream.read()) found += part;
    return found.length >= text.length;
  });
  assert.strictEqual(found, text);
}

async function until(check, within = 20000) {
  const deadline = Date.now() + within;
  for (;;) {
    const found = await check().catch(() => undefined);
    if (found) return found;
    assert(Date.now() < deadline, `${check} does not come`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function running(config, use) {
  const made = await docker.createContainer({ Image: 'busybox', Cmd: SLEEP, name: name(), ...config });
  try {
    await made.start();
    return await use(made);
  } finally {
    await made.remove({ force: true, v: true });
  }
}

// one ustar header and its content
function tar(files) {
  const parts = [];
  for (const [path, text] of Object.entries(files)) {
    const head = Buffer.alloc(512);
    head.write(path, 0);
    head.write('0000644\0', 100);
    head.write('0000000\0', 108);
    head.write('0000000\0', 116);
    head.write(text.length.toString(8).padStart(11, '0') + '\0', 124);
    head.write('00000000000\0', 136);
    head.write('        ', 148);
    head.write('0', 156);
    head.write('ustar\0' + '00', 257);
    head.write(head.reduce((a, b) => a + b, 0).toString(8).padStart(6, '0') + '\0 ', 148);
    const body = Buffer.alloc(Math.ceil(text.length / 512) * 512);
    body.write(text);
    parts.push(head, body);
  }
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

cases.lifeCycle = async () => {
  await running({ Labels: { node: '1' } }, async (made) => {
    assert.strictEqual((await made.inspect()).State.Running, true);
    await made.pause();
    assert.strictEqual((await made.inspect()).State.Status, 'paused');
    await made.unpause();
    await made.restart({ t: 1 });
    const other = name();
    await made.rename({ name: other });
    assert.strictEqual((await docker.getContainer(other).inspect()).Id, made.id);
    const rows = await docker.listContainers({ filters: { label: ['node=1'] } });
    assert.deepStrictEqual(rows.map((r) => r.Id), [made.id]);
    await made.stop({ t: 5 });
    assert.strictEqual((await made.inspect()).State.ExitCode, 0);
    await made.start();
    await made.kill();
    assert.strictEqual((await made.wait()).StatusCode, 137);
    await made.update({ RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 } });
    assert.strictEqual((await made.inspect()).HostConfig.RestartPolicy.MaximumRetryCount, 2);
  });
  await assert.rejects(docker.getContainer('nosuch').inspect(), (e) => e.statusCode === 404 && /No such container/.test(e.message));
  await assert.rejects(docker.createContainer({ Image: 'nosuch' }), (e) => e.statusCode === 404);
};

cases.run = async () => {
  const out = new PassThrough();
  const err = new PassThrough();
  const [data, made] = await docker.run('busybox', ['sh', '-c', 'echo o; echo e >&2; exit 3'], [out, err], { Tty: false });
  assert.strictEqual(data.StatusCode, 3);
  await comes(out, 'o\n');
  await comes(err, 'e\n');
  await made.remove();
};

cases.logs = async () => {
  const made = await docker.createContainer({ Image: 'busybox', Cmd: ['sh', '-c', 'for i in 1 2 3; do echo $i; sleep 0.2; done'] });
  await made.start();
  const stream = await made.logs({ follow: true, stdout: true, stderr: true });
  const out = new PassThrough();
  const said = collect(out);
  made.modem.demuxStream(stream, out, out);
  stream.on('end', () => out.end());
  assert.strictEqual((await said).toString(), '1\n2\n3\n');
  const whole = await made.logs({ stdout: true, tail: 1 });
  assert.strictEqual(whole.subarray(8).toString(), '3\n');
  await made.remove();
};

cases.exec = async () => {
  await running({}, async (made) => {
    const exec = await made.exec({ Cmd: ['sh', '-c', 'cat; exit 4'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
    const stream = await exec.start({ hijack: true, stdin: true });
    const out = new PassThrough();
    const said = collect(out);
    docker.modem.demuxStream(stream, out, out);
    stream.on('end', () => out.end());
    stream.end('typed\n');
    assert.strictEqual((await said).toString(), 'typed\n');
    assert.strictEqual((await until(async () => { const i = await exec.inspect(); return !i.Running && i; })).ExitCode, 4);
    const tty = await made.exec({ Cmd: ['sh'], AttachStdin: true, AttachStdout: true, Tty: true });
    const terminal = await tty.start({ hijack: true, stdin: true, Tty: true });
    await tty.resize({ h: 33, w: 44 });
    let seen = '';
    terminal.on('data', (d) => { seen += d; });
    terminal.write('stty size; exit\n');
    await until(async () => seen.includes('33 44'));
  });
};

cases.attach = async () => {
  const made = await docker.createContainer({
    Image: 'busybox', Cmd: ['cat'], OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true, Tty: false,
  });
  const stream = await made.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const out = new PassThrough();
  const said = collect(out);
  made.modem.demuxStream(stream, out, out);
  stream.on('end', () => out.end());
  await made.start();
  stream.end('to and fro\n');
  assert.strictEqual((await said).toString(), 'to and fro\n');
  await made.wait();
  await made.remove();
};

cases.archives = async () => {
  await running({}, async (made) => {
    await made.putArchive(tar({ file: 'hello' }), { path: '/tmp' });
    await made.putArchive(zlib.gzipSync(tar({ packed: 'hello' })), { path: '/tmp' });
    const got = await collect(await made.getArchive({ path: '/tmp/file' }));
    assert(got.includes('hello'));
    const head = await made.infoArchive({ path: '/tmp/packed' });
    const stat = JSON.parse(Buffer.from(head.headers['x-docker-container-path-stat'], 'base64'));
    assert.deepStrictEqual([stat.name, stat.size], ['packed', 5]);
    assert((await made.changes()).some((c) => c.Path === '/tmp/file'));
    assert((await collect(await made.export())).length > 100000);
  });
};

cases.ports = async () => {
  const config = {
    Cmd: ['httpd', '-f', '-p', '80', '-h', '/srv'],
    ExposedPorts: { '80/tcp': {} },
    HostConfig: { PortBindings: { '80/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } },
  };
  await running(config, async (made) => {
    const [where] = (await made.inspect()).NetworkSettings.Ports['80/tcp'];
    const get = () => new Promise((resolve, reject) => {
      http.get({ host: '127.0.0.1', port: where.HostPort, path: '/hello' }, (r) => collect(r).then(resolve, reject)).on('error', reject);
    });
    assert.strictEqual((await until(get)).toString(), 'hello from the image\n');
  });
};

cases.networks = async () => {
  const network = await docker.createNetwork({ Name: name(), CheckDuplicate: true, Labels: { node: 'n' } });
  try {
    await running({}, (one) => running({ HostConfig: { NetworkMode: network.id } }, async (two) => {
      await network.connect({ Container: one.id, EndpointConfig: { Aliases: ['other'] } });
      const shown = await network.inspect();
      assert.deepStrictEqual(Object.keys(shown.Containers).sort(), [one.id, two.id].sort());
      const exec = await two.exec({ Cmd: ['ping', '-c', '1', 'other'], AttachStdout: true });
      await collect(await exec.start({}));
      assert.strictEqual((await until(async () => { const i = await exec.inspect(); return !i.Running && i; })).ExitCode, 0);
      await network.disconnect({ Container: one.id, Force: true });
      const rows = await docker.listNetworks({ filters: { label: ['node=n'] } });
      assert.deepStrictEqual(rows.map((r) => r.Id), [network.id]);
    }));
  } finally {
    await network.remove();
  }
};

cases.volumes = async () => {
  const made = await docker.createVolume({ Name: name(), Labels: { node: 'v' } });
  const volume = docker.getVolume(made.name || made.Name);
  await running({ HostConfig: { Binds: [`${volume.name}:/data`] } }, async () => {
    await assert.rejects(volume.remove(), (e) => e.statusCode === 409);
  });
  const { Volumes } = await docker.listVolumes({ filters: { label: ['node=v'] } });
  assert.deepStrictEqual(Volumes.map((v) => v.Name), [volume.name]);
  await volume.remove();
};

cases.images = async () => {
  const tag = `node/${name()}`;
  const follow = (stream) => new Promise((resolve, reject) => {
    docker.modem.followProgress(stream, (error, lines) => (error ? reject(error) : resolve(lines)));
  });
  const context = tar({ Dockerfile: 'FROM busybox\nARG A\nRUN echo built$A > /built\nCMD cat /built\n' });
  const lines = await follow(await docker.buildImage(zlib.gzipSync(context), { t: `${tag}:1`, buildargs: { A: '5' } }));
  assert(JSON.stringify(lines).includes(`Successfully tagged ${tag}:1`));
  const out = new PassThrough();
  const [, made] = await docker.run(`${tag}:1`, [], out, { Tty: true });
  await comes(out, 'built5\r\n');
  await made.commit({ repo: tag, tag: 'c', changes: 'ENV X=1' });
  await made.remove();
  const image = docker.getImage(`${tag}:c`);
  assert((await image.inspect()).Config.Env.includes('X=1'));
  assert((await image.history()).length > 2);
  const saved = await collect(await image.get());
  await image.remove();
  assert(JSON.stringify(await follow(await docker.loadImage(saved))).includes(`Loaded image: ${tag}:c`));
  await image.tag({ repo: tag, tag: 'd' });
  assert.strictEqual((await docker.listImages({ filters: { reference: [tag] } }))[0].RepoTags.length >= 1, true);
  for (const which of ['c', 'd', '1']) await docker.getImage(`${tag}:${which}`).remove({ force: true });
  await assert.rejects(docker.pull('127.0.0.1:1/nosuch'));
};

cases.events = async () => {
  const stream = await docker.getEvents({ filters: { type: ['container'], label: ['node=e'] } });
  const actions = [];
  stream.on('data', (part) => part.toString().split('\n').filter(Boolean).forEach((l) => actions.push(JSON.parse(l).Action)));
  const made = await docker.createContainer({ Image: 'busybox', Cmd: ['true'], Labels: { node: 'e' } });
  await made.start();
  await made.wait();
  await made.remove();
  await until(async () => actions.includes('destroy'));
  stream.destroy();
  assert.deepStrictEqual(actions, ['create', 'start', 'die', 'destroy']);
};

cases.stats = async () => {
  await running({}, async (made) => {
    const once = await made.stats({ stream: false });
    assert(once.memory_stats.usage > 0 && once.cpu_stats.system_cpu_usage > 0 && once.networks.eth0);
    const stream = await made.stats({ stream: true });
    const first = await new Promise((resolve) => stream.once('data', resolve));
    assert(JSON.parse(first.toString()).read);
    stream.destroy();
    assert((await made.top({ ps_args: '-o pid,args' })).Processes.some((p) => /sleep/.test(p[1])));
  });
};

cases.system = async () => {
  assert.strictEqual((await docker.ping()).toString(), 'OK');
  assert((await docker.version()).ApiVersion);
  assert.strictEqual((await docker.info()).OSType, 'linux');
  assert((await docker.df()).Images.length > 0);
  for (const ask of ['listServices', 'listNodes', 'listTasks', 'listSecrets', 'listConfigs', 'swarmInspect']) {
    await assert.rejects(docker[ask](), (e) => e.statusCode === 503);
  }
  await docker.pruneContainers({ filters: { label: ['nosuch'] } });
  await docker.pruneVolumes({ filters: { label: ['nosuch'] } });
  await docker.pruneNetworks({ filters: { label: ['nosuch'] } });
  await docker.pruneImages({ filters: { label: ['nosuch'] } });
};

(async () => {
  let failed = 0;
  for (const [label, run] of Object.entries(cases)) {
    if (process.argv[2] && !process.argv.slice(2).includes(label)) continue;
    try {
      await run();
      console.log(`ok ${label}`);
    } catch (error) {
      failed += 1;
      console.log(`failed ${label}\n${error.stack}`);
    }
  }
  process.exit(failed ? 1 : 0);
})();
