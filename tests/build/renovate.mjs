// What Renovate does with a template's version that it found: its own code runs copier.
// node renovate.mjs INSTALLED CACHE ORIGIN CLONE VERSION; what it would report is the last line.
import process from "node:process";

const [installed, cacheDir, url, localDir, newValue] = process.argv.slice(2);
const renovate = `${installed}/node_modules/renovate/dist`;
const { GlobalConfig } = await import(`${renovate}/config/global.js`);
const git = await import(`${renovate}/util/git/index.js`);
const { updateArtifacts } = await import(`${renovate}/modules/manager/copier/artifacts.js`);

GlobalConfig.set({ platform: "github", localDir, cacheDir, binarySource: "global" });
await git.initRepo({ url, defaultBranch: "main" });
// The first look at a clone resets it.
await git.getRepoStatus();
const results = await updateArtifacts({
  packageFileName: ".copier-answers.yml",
  updatedDeps: [{ newValue }],
  config: {},
});
const told = (results ?? []).map((result) => result.artifactError ?? { path: result.file.path });
console.log(JSON.stringify(told));
