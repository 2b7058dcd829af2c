// Who is signed in, and what that is good for. The server decides; the page only leaves out what would be refused.

const RIGHTS = { viewer: ["look"], operator: ["look", "operate"], admin: ["look", "operate", "administer"] };

export const session = { name: "", role: "viewer", stacks: [], version: "", node: "" };

export const may = (right) => RIGHTS[session.role]?.includes(right) ?? false;
export const isLimited = () => !session.stacks.includes("*");
